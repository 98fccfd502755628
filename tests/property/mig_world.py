"""A node under random treatment: claims come and go, the plugin is killed, hardware fails, people use nvidia-smi.

The world knows what must be on the hardware. Everything that happens is a method of :class:`World`; ``step`` picks one.
The plugin's work runs on this thread, so that a kill is an exception at any of its moments: before and after each call
to the hardware and each write of a file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from api.mig_policy import MigMode
from dra_driver.devices.naming import gpu_name, mig_name, partial_profile
from dra_driver.devices.policy import MigPolicy, MigRule, toggles_without_reset
from dra_driver.devices.selector import GpuSelector
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, GpuInstance, MigPlacement
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.kinds.mig.device import MigDevice
from kubelet_plugin.prepare.kinds import exclude_each_other
from tests.devices.recorded import recorded
from tests.kubelet_plugin.kinds.mig.fake import FakeMig, Fault, Misuse
from tests.kubelet_plugin.prepare.node import TestNode, claim, result
from tests.property.killing import Clockwork
from tests.property.plugin_world import PluginWorld

_FUNCTIONS = (
    "mode",
    "set_mode",
    "instances",
    "create_gpu_instance",
    "create_compute_instance",
    "destroy_compute_instance",
    "destroy_gpu_instance",
)
_MOST_CLAIMS = 12


class MigUnderWatch(FakeMig):
    """The fake hardware with moments, and with somebody who may be faster at a placement."""

    def __init__(self, node: TestNode, clockwork: Clockwork) -> None:
        super().__init__(node.machine)
        self.clockwork = clockwork
        self.misuses: list[str] = []
        self.rival: Callable[[str, int, MigPlacement], None] | None = None

    def set_mode(self, gpu_uuid: str, enabled: bool) -> None:
        self._moments(lambda: super(MigUnderWatch, self).set_mode(gpu_uuid, enabled))

    def create_gpu_instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> int:
        if self.rival is not None:
            self.rival(gpu_uuid, profile_id, placement)
            self.rival = None
        made: int = self._moments(
            lambda: super(MigUnderWatch, self).create_gpu_instance(gpu_uuid, profile_id, placement)
        )
        return made

    def create_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, slices: int) -> Any:
        return self._moments(
            lambda: super(MigUnderWatch, self).create_compute_instance(gpu_uuid, gpu_instance_id, slices)
        )

    def destroy_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, compute_instance_id: int) -> None:
        self._moments(
            lambda: super(MigUnderWatch, self).destroy_compute_instance(gpu_uuid, gpu_instance_id, compute_instance_id)
        )

    def destroy_gpu_instance(self, gpu_uuid: str, gpu_instance_id: int) -> None:
        self._moments(lambda: super(MigUnderWatch, self).destroy_gpu_instance(gpu_uuid, gpu_instance_id))

    def _moments(self, act: Callable[[], Any]) -> Any:
        self.clockwork.moment()
        try:
            done = act()
        except Misuse as error:
            self.misuses.append(str(error))
            raise
        self.clockwork.moment()
        return done


Spot = tuple[str, int, int]  # GPU, profile id, placement start


@dataclass
class World(PluginWorld[tuple[str, ...]]):
    """``seed`` decides everything. ``patch`` replaces a function by its dotted name for as long as the world lives."""

    most_moments: ClassVar[int] = 22

    folder: Path
    machine: str
    seed: int
    patch: Callable[[str, object], None]
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.machine}/{self.seed}")
        self.clockwork = Clockwork()
        self.clockwork.on_files(self.patch)
        machine = recorded(self.machine, 2)
        # On the last GPU nothing is made for claims.
        rules = (MigRule(GpuSelector(minors=(1,)), MigMode.STATIC), MigRule(mode=MigMode.DYNAMIC))
        self.node = TestNode(self.folder, on=machine, policy=MigPolicy(rules))
        self.mig = MigUnderWatch(self.node, self.clockwork)
        self.node.mig = self.node.fake_mig = self.mig
        self.boot = 1
        self.claims: dict[str, tuple[str, ...]] = {}
        self.strangers: dict[str, set[str]] = {}  # MIG UUIDs of what people made, by GPU
        self.ever_busy: set[str] = set()
        self.emptied_by_hand: set[str] = set()  # GPUs, until MIG mode is off
        self.number = 0
        self.kills = self.prepared = 0
        for gpu in machine.gpus:
            if not toggles_without_reset(gpu) or gpu.minor == 1:
                self.mig.turn_on(gpu.uuid)
        self.engine = self._start()

    # -- what happens ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        acts: list[tuple[int, Callable[[], None]]] = [
            (30, self.prepare_new),
            (8, self.prepare_again),
            (26, self.unprepare),
            (24, self.kill_in_something),
            (4, self.restart),
            (6, self.somebody_makes),
            (9, self.somebody_destroys),
            (3, self.somebody_destroys_a_claims),
            (8, self.fault),
            (4, self.use),
            (1, self.reboot),
            (6, self.settle),
        ]
        weights, choices = zip(*acts, strict=True)
        act = self.random.choices(choices, weights)[0]
        act()
        self.check()

    def prepare_new(self) -> None:
        if len(self.claims) < _MOST_CLAIMS:
            uid = self._new_claim()
            self.mig.rival = self._rival if self.random.random() < 0.05 else None
            self._do(Operation.PREPARE, uid)
            self.mig.rival = None

    def _new_claim(self) -> str:
        self.number += 1
        uid = f"c{self.number}"
        self.claims[uid] = self._some_devices()
        self.node.claims.add(claim(uid, *(result(name, f"r{each}") for each, name in enumerate(self.claims[uid]))))
        return uid

    def somebody_makes(self) -> None:
        """``nvidia-smi mig -cgi``, where no claim of the checkpoint has its place: there it would be the claim's."""
        gpu = self.random.choice(self.node.machine.gpus)
        profile = self.random.choice(gpu.mig.profiles if gpu.mig else ())
        placement = self.random.choice(profile.placements)
        owned = (spot for spots in self._entries().values() for spot in spots)
        if any(each[0] == gpu.uuid and self._placement(each).overlaps(placement) for each in owned):
            return
        if gpu.uuid in {gpu.uuid for gpu in self.node.machine.gpus if self._is_held_whole(gpu)}:
            return  # MIG mode is off and a process uses the GPU: nobody turns it on
        self._make_by_hand(gpu.uuid, profile.id, placement.start)

    def somebody_destroys(self) -> None:
        made = [(gpu, uuid) for gpu, uuids in self.strangers.items() for uuid in sorted(uuids)]
        if made:
            gpu, uuid = self.random.choice(made)
            self.history.append(f"destroyed by hand: {uuid}")
            self.strangers[gpu].discard(uuid)
            self.mig.in_use.discard(uuid)
            self.mig.destroy_by_hand(gpu, self._instance(gpu, uuid).id)
            if not self._instances(gpu):
                self.emptied_by_hand.add(gpu)

    def somebody_destroys_a_claims(self) -> None:
        found = [
            (gpu, each)
            for gpu, instances in self.mig.everything().items()
            for each in instances
            if not self._is_strange(gpu, each)
        ]
        if found:
            gpu, instance = self.random.choice(found)
            self.history.append(f"destroyed by hand although a claim has it: {instance}")
            self.mig.destroy_by_hand(gpu, instance.id)

    def fault(self) -> None:
        function = self.random.choice(_FUNCTIONS)
        after = self.random.random() < 0.5
        self.history.append(f"fault: {function}, after={after}")
        self.mig.faults.append(Fault(function, after=after))

    def use(self) -> None:
        """A process on a MIG device, or a client on a GPU; or placements that NVML refuses without a reason."""
        gpu = self.random.choice(self.node.machine.gpus)
        kind = self.random.choice(["busy", "in_use", "refused"])
        if kind == "busy":
            self.mig.busy.add(gpu.uuid)
            self.ever_busy.add(gpu.uuid)
        elif kind == "in_use":
            computes = [
                compute.uuid
                for instances in self.mig.everything().values()
                for each in instances
                for compute in each.compute_instances
            ]
            self.mig.in_use |= set(self.random.sample(computes, min(1, len(computes))))
        else:
            profile = self.random.choice(gpu.mig.profiles if gpu.mig else ())
            self.mig.refused.add((gpu.uuid, profile.id, self.random.choice(profile.placements).start))

    def reboot(self) -> None:
        """Instances are gone, MIG mode too where it needs no reset; the CDI folder may be a disk's."""
        self.history.append("reboot")
        self.engine.stop(0.0)
        self._calm()
        for uuid, instances in self.mig.everything().items():
            for each in instances:
                self.mig.destroy_by_hand(uuid, each.id)
        for gpu in self.node.machine.gpus:
            if toggles_without_reset(gpu) and gpu.minor != 1:
                self.mig.turn_off(gpu.uuid)
        self.strangers.clear()
        if self.random.random() < 0.5:
            for uid in self.node.cdi.claim_uids():
                self.node.cdi.remove(uid)
        if self.random.random() < 0.3:
            gpu = self.node.machine.gpus[0]
            profile = self.random.choice(gpu.mig.profiles if gpu.mig else ())
            self._make_by_hand(gpu.uuid, profile.id, self.random.choice(profile.placements).start)
        self.boot += 1
        self.engine = self._start()

    def settle(self) -> None:
        """Nothing fails any more, and the kubelet tries everything again: then all must be exactly as it should."""
        self.history.append("settle")
        self._calm()
        for uid in list(self.claims):
            if not self._do(Operation.PREPARE, uid):
                assert self._do(Operation.UNPREPARE, uid), f"{uid} cannot be unprepared on hardware that works"
                self._forget(uid)
        self.check_settled()

    def story(self) -> str:
        return self._story(f"machine {self.machine}, seed {self.seed}")

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert not self.mig.misuses, self.mig.misuses
        for gpu, uuids in self.strangers.items():
            there = {compute.uuid for each in self._instances(gpu) for compute in each.compute_instances}
            assert uuids <= there, f"what people made is gone from {gpu}: {uuids - there}"
        self.emptied_by_hand &= self.mig.enabled()
        owned = {spot for spots in self._entries().values() for spot in spots}
        for gpu, instances in self.mig.everything().items():
            for each in instances:
                spot = (gpu, each.profile_id, each.placement.start)
                assert self._is_strange(gpu, each) or spot in owned, f"nobody's: {each} on {gpu}"

    def check_settled(self) -> None:
        entries = self.engine.entries()
        assert set(entries) == set(self.claims)
        assert {entry.state for entry in entries.values()} <= {ClaimState.COMPLETED}
        assert set(self.node.cdi.claim_uids()) == set(self.claims)
        expected = {spot for spots in self._entries().values() for spot in spots if spot[0] != "GPU-1"}
        there = {
            (gpu, each.profile_id, each.placement.start)
            for gpu, instances in self.mig.everything().items()
            for each in instances
            if not self._is_strange(gpu, each)
        }
        assert there == expected
        assert all(each.compute_instances for instances in self.mig.everything().values() for each in instances)
        dynamic = self.node.machine.gpus[0]
        if toggles_without_reset(dynamic) and dynamic.uuid not in self.ever_busy:
            # Of somebody who takes away the last instance by hand the plugin does not hear.
            needed = bool(self._instances(dynamic.uuid)) or dynamic.uuid in self.emptied_by_hand
            assert needed or dynamic.uuid not in self.mig.enabled(), "MIG mode is on for nothing"
        assert self.node.left_overs() == []

    # -- help --------------------------------------------------------------------------------------------------------

    def _do(self, operation: Operation, uid: str) -> bool:
        self.node.machine = self.mig.machine(self.node.machine)
        return super()._do(operation, uid)

    def _calm(self) -> None:
        self.mig.faults.clear()
        self.mig.in_use.clear()
        self.mig.busy.clear()
        self.mig.refused.clear()

    def _some_devices(self) -> tuple[str, ...]:
        """Mostly devices that are free, as a scheduler would choose them."""
        chosen: list[str] = []
        for _ in range(self.random.choice([1, 1, 1, 2, 2, 3])):
            name = self._some_device()
            if self.random.random() < 0.85:
                taken = [held.prepared.device_name for each in self.engine.entries().values() for held in each.devices]
                tries = (self._some_device() for _ in range(12))
                name = next((each for each in tries if not self._collides(each, (*taken, *chosen))), name)
            chosen.append(name)
        return tuple(dict.fromkeys(chosen))

    def _collides(self, name: str, others: Iterable[str]) -> bool:
        """With another claim's device, or with what people made where claims make theirs."""
        kinds, machine = self.node.kinds(), self.node.machine
        _kind, place = kinds.find(name, machine)
        gpu = next(gpu for gpu in machine.gpus if gpu.uuid == place.gpu_uuid)
        strange = (each for each in self._instances(gpu.uuid) if gpu.minor == 0 and self._is_strange(gpu.uuid, each))
        if any(not isinstance(place, MigDevice) or place.at.placement.overlaps(each.placement) for each in strange):
            return True
        return any(exclude_each_other(place, kinds.find(other, machine)[1]) for other in others)

    def _some_device(self) -> str:
        gpu = self.node.machine.gpus[0 if self.random.random() < 0.85 else 1]
        if self.random.random() < 0.1 or gpu.mig is None:
            return gpu_name(gpu.minor)
        there = self._instances(gpu.uuid)
        if gpu.minor == 1 and there and self.random.random() < 0.8:
            found = self.random.choice(there)
            return mig_name(gpu.minor, found.profile_name, found.profile_id, found.placement.start)
        # Small ones more often, so that several fit.
        weights = [1 / profile.slice_count for profile in gpu.mig.profiles]
        profile = self.random.choices(gpu.mig.profiles, weights)[0]
        start = self.random.choice(profile.placements).start
        if profile.slice_count > 1 and self.random.random() < 0.15:
            return mig_name(gpu.minor, partial_profile(profile.name, 1), profile.id, start, 0)
        return mig_name(gpu.minor, profile.name, profile.id, start)

    def _entries(self) -> dict[str, set[Spot]]:
        """Places that claims of the checkpoint own in this boot, by claim."""
        found: dict[str, set[Spot]] = {}
        for uid, entry in self.engine.entries().items():
            if entry.boot_id != self._boot_id:
                continue
            names = (held.prepared.device_name.split("-") for held in entry.devices)
            found[uid] = {_spot(name) for name in names if len(name) > 2}
        return found

    def _is_held_whole(self, gpu: Gpu) -> bool:
        name = gpu_name(gpu.minor)
        return any(
            held.prepared.device_name == name for entry in self.engine.entries().values() for held in entry.devices
        )

    def _placement(self, spot: Spot) -> MigPlacement:
        gpu = next(gpu for gpu in self.node.machine.gpus if gpu.uuid == spot[0])
        profile = gpu.mig.profile(spot[1]) if gpu.mig else None
        assert profile is not None
        return next(each for each in profile.placements if each.start == spot[2])

    def _rival(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> None:
        """Somebody who makes the very same instance, between the plugin's look and its create."""
        self._make_by_hand(gpu_uuid, profile_id, placement.start)

    def _make_by_hand(self, gpu_uuid: str, profile_id: int, start: int) -> None:
        try:
            made = self.mig.by_hand(gpu_uuid, profile_id, start)
        except HardwareError:
            return
        uuid = made.compute_instances[0].uuid
        self.history.append(f"made by hand: {uuid} {profile_id} at {start} of {gpu_uuid}")
        self.strangers.setdefault(gpu_uuid, set()).add(uuid)

    def _instances(self, gpu_uuid: str) -> tuple[GpuInstance, ...]:
        return self.mig.everything().get(gpu_uuid, ())

    def _instance(self, gpu_uuid: str, mig_uuid: str) -> GpuInstance:
        return next(
            each
            for each in self._instances(gpu_uuid)
            if any(compute.uuid == mig_uuid for compute in each.compute_instances)
        )

    def _is_strange(self, gpu_uuid: str, instance: GpuInstance) -> bool:
        ours = self.strangers.get(gpu_uuid, set())
        return any(compute.uuid in ours for compute in instance.compute_instances)


def _spot(name: list[str]) -> Spot:
    """Of ``gpu-0-mig-1g10gb-me-20-3`` or ``gpu-0-mig-1c3g40gb-9-4-c0``, cut at its dashes."""
    numbers = [part for part in name if part.isdigit()]
    return f"GPU-{numbers[0]}", int(numbers[-2]), int(numbers[-1])
