"""A node whose GPUs are simulated at NVML: the real adapter, capability files, and state that outlives a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.mig_capabilities import read_mig_capabilities
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import DeviceNode
from dra_driver.devices.policy import MigPolicy
from dra_driver.hardware.compute_policy import ComputePolicy
from dra_driver.hardware.model import GpuInstance
from dra_driver.hardware.nvml import MigControl, NvmlHardware
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import MachineDescription, create_state, host_root, install, load_machine, uninstall
from tests.kubelet_plugin.kinds.smi_here import SmiHere
from tests.kubelet_plugin.prepare.node import TestNode


class SimulatedNode(TestNode):
    """The process's NVML is this node's until :meth:`close`, or until the next node is made."""

    def __init__(self, folder: Path, machine: str | MachineDescription, policy: MigPolicy | None = None) -> None:
        self.state_file = folder / "gpus.json"
        self.host = folder / "host"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.state_file.exists():
            create_state(machine, self.state_file, seed="node-0")
            host_root.build(self.host, self.state_file)
        uninstall()
        install(self.state_file)
        self.hardware = NvmlHardware(driver_root=self.host, topology=Sysfs(self.host))
        self.hardware.start()
        super().__init__(folder, on=self.hardware.read_machine(), policy=policy or MigPolicy())
        self.mig = self.control = MigControl()
        self.smi = SmiHere(self.hardware)
        self.time_slices = ComputePolicy(self.smi)
        self.capabilities = self._capabilities
        self.edits = DriverEdits(DriverRoots(Root(self.host), sysfs=self.host / "sys"))

    def close(self) -> None:
        self.hardware.stop()
        uninstall()

    def everything(self) -> dict[str, tuple[GpuInstance, ...]]:
        """All instances on the hardware now, by GPU; only GPUs that have some."""
        found = {gpu.uuid: self.control.instances(gpu.uuid) for gpu in self.machine.gpus}
        return {uuid: instances for uuid, instances in found.items() if instances}

    def by_hand(self, gpu_uuid: str, profile_id: int, start: int) -> None:
        """``nvidia-smi mig -cgi PROFILE:START -C``, with MIG mode on. Raises as NVML does."""
        gpu = next(gpu for gpu in self.machine.gpus if gpu.uuid == gpu_uuid)
        profile = gpu.mig.profile(profile_id) if gpu.mig else None
        assert profile is not None
        placement = next(each for each in profile.placements if each.start == start)
        if not self.control.mode(gpu_uuid)[0]:
            self.control.set_mode(gpu_uuid, True)
        made = self.control.create_gpu_instance(gpu_uuid, profile_id, placement)
        self.control.create_compute_instance(gpu_uuid, made, profile.slice_count)

    def _capabilities(self, gpu_minor: int, gpu_instance: int, compute_instance: int, /) -> Sequence[DeviceNode]:
        return read_mig_capabilities(self.host, gpu_minor, gpu_instance, compute_instance).device_nodes()


def first_gpus(machine: str, count: int) -> MachineDescription:
    """A recorded machine with fewer GPUs, where making it takes the time."""
    found = load_machine(machine)
    hardware = found.hardware.model_copy(update={"gpus": found.hardware.gpus[:count]})
    return found.model_copy(update={"hardware": hardware})
