"""A node on which NVIDIA's driver was before: its checkpoint, its CDI files, and MIG devices that it made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dra_driver.devices.naming import MigName, parse_name
from dra_driver.devices.policy import MigPolicy
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Machine
from kubelet_plugin.kinds.time_slice import is_time_sliced
from kubelet_plugin.prepare.checkpoint import CheckpointDamage
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.takeover.nvidia_checkpoint import LiveMig, NvidiaClaim
from kubelet_plugin.takeover.take_over import NVIDIA_FILE, Neighbourhood, TakenOver, TakeOver
from tests.kubelet_plugin.prepare.node import BOOT, DRIVER
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode, first_gpus
from tests.kubelet_plugin.takeover.nvidia import finished, kubelet_file, leave, leave_cdi


@dataclass
class Told:
    """A ``TakeOverListener`` that remembers."""

    taken: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    damages: list[CheckpointDamage] = field(default_factory=list)

    def taken_over(self, message: str) -> None:
        self.taken.append(message)

    def take_over_incomplete(self, message: str) -> None:
        self.incomplete.append(message)

    def checkpoint_damaged(self, damage: CheckpointDamage) -> None:
        self.damages.append(damage)


class ChangingNode(SimulatedNode):
    """Its state folder is where the plugin has it: below the folder that both drivers use."""

    def __init__(self, folder: Path, policy: MigPolicy | None = None) -> None:
        super().__init__(folder, first_gpus("h100-sxm5-80gb", 2), policy)
        self.folder = folder / "plugins" / DRIVER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.folder / "gpu-dra"
        self.nvidia_file = self.folder / NVIDIA_FILE
        self.kubelet_state = folder / "dra_manager_state"
        self.told = Told()
        self.silent = False

    def nvidia_leaves(self, *claims: NvidiaClaim, boot_id: str = BOOT) -> None:
        """NVIDIA's checkpoint with ``claims``, and the CDI file of each."""
        leave(self.folder, self.cdi, claims, boot_id)

    def nvidia_cdi(self, uid: str, device: str) -> None:
        leave_cdi(self.cdi, uid, device)

    def nvidia_made(self, uid: str, device: str) -> NvidiaClaim:
        """A finished claim with a MIG device, which is made as NVIDIA's driver makes it."""
        name = parse_name(device)
        assert isinstance(name, MigName)
        gpu = next(gpu for gpu in self.machine.gpus if gpu.minor == name.minor)
        self.by_hand(gpu.uuid, name.profile_id, name.start)
        made = next(
            each
            for each in self.control.instances(gpu.uuid)
            if (each.profile_id, each.placement.start) == (name.profile_id, name.start)
        )
        (compute,) = made.compute_instances
        return finished(uid, device, gpu.uuid, LiveMig(compute.uuid, gpu.uuid, gpu.minor, made.id, compute.id))

    def kubelet_has(self, *uids: str) -> None:
        self.kubelet_state.write_bytes(kubelet_file(*uids))

    def machine_now(self) -> Machine:
        if self.silent:
            raise HardwareError("the driver does not answer")
        return self.hardware.read_machine()

    def take_over(self, boot_id: str = BOOT, *, hand_over: bool = False, seconds: float = 20.0) -> TakeOver:
        around = Neighbourhood(self.machine_now, self.control.instances, self.kubelet_state)
        kinds = self.kinds(boot_id)
        return TakeOver(
            self.folder,
            DRIVER,
            boot_id,
            self.cdi,
            kinds,
            around,
            self.told,
            is_time_sliced=is_time_sliced,
            hand_over=hand_over,
            seconds=seconds,
        )

    def starts(self, boot_id: str = BOOT) -> tuple[TakenOver, PrepareEngine]:
        """As the plugin starts: first what others left, then the engine."""
        taken = self.take_over(boot_id).start()
        self.machine = self.hardware.read_machine()
        return taken, self.engine(boot_id)
