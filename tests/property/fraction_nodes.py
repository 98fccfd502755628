"""Nodes that are offered in fractions: recorded machines, with MIG or without, as plugin and controller tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from api.fractions import SharingBackend
from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.mig_devices import existing_name
from dra_driver.devices.naming import gpu_name
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Fractions, SharingPolicy, SharingRule
from dra_driver.hardware.model import Gpu, GpuInstance, Machine, Reserve
from dra_driver.kube.interface import RESOURCE_SLICES, Obj
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.encode import encode_slice
from dra_driver.slices.features import ApiFeatures
from tests.allocator.builders import DRIVER
from tests.devices.mig_gpus import instance
from tests.devices.recorded import recorded, with_instances

NODE = "node-0"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class FractionNode:
    """``profiles``: of the MIG devices that can be had."""

    machine: Machine
    policy: DevicePolicy
    profiles: tuple[str, ...] = ()

    def slices(self) -> list[Obj]:
        """As the controller publishes them on 1.35 and later, and a server has taken them."""
        owner = PoolOwner(DRIVER, NODE, f"uid-{NODE}")
        specs = desired_slices(allocatable_devices(self.machine, self.policy, NODE), owner, ApiFeatures())
        server, count = EmbeddedApi(), len(specs)
        return [server.create(RESOURCE_SLICES, encode_slice(each, owner, generation=1, count=count)) for each in specs]


def random_node(random: Random, machine: str, fractions: Fractions) -> FractionNode:
    """Mostly all GPUs are divided; with MIG as claims want it, or with MIG devices that are there and divided."""
    plain = recorded(machine, random.choice([1, 2, 2, 3]))
    has_mig = plain.gpus[0].mig is not None
    mode = random.choice([MigMode.OFF, MigMode.DYNAMIC, MigMode.DYNAMIC, MigMode.STATIC] if has_mig else [MigMode.OFF])
    selector = GpuSelector(minors=(0,)) if random.random() < 0.2 else GpuSelector()
    rules = [SharingRule(fractions, selector)]
    profiles: tuple[str, ...] = ()
    if mode is MigMode.STATIC:
        first = _cut(plain.gpus[0], machine)
        plain = replace(plain, gpus=(first, *plain.gpus[1:]))
        profiles = tuple(sorted({each.profile_name for each in _instances(first)}))
        rules = [SharingRule(fractions, mig_profile=random.choice(profiles)), *rules]
    policy = DevicePolicy(mig=MigPolicy((MigRule(mode=mode),)), sharing=SharingPolicy(tuple(rules)))
    told = _measured(random, plain)
    if mode is MigMode.DYNAMIC:
        offered = allocatable_devices(told, policy, NODE).devices
        profiles = tuple(sorted({str(each.attributes["profile"]) for each in offered if "profile" in each.attributes}))
    return FractionNode(told, policy, profiles)


def _cut(gpu: Gpu, machine: str) -> Gpu:
    """Into MIG devices of its smallest profile."""
    assert gpu.mig is not None
    smallest = gpu.mig.profiles[0]
    made = [instance(smallest.name, each.start, of=machine) for each in smallest.placements]
    return with_instances(replace(gpu, mig=replace(gpu.mig, enabled=True, pending=True)), *made)


def _measured(random: Random, plain: Machine) -> Machine:
    """As a plugin tells of it once it knows what of each device is nobody's."""
    gpus = tuple(replace(gpu, reserves=tuple(_reserves(random, gpu))) for gpu in plain.gpus)
    return replace(plain, gpus=gpus, fences=(SharingBackend.MPS,))


def _reserves(random: Random, gpu: Gpu) -> Iterator[Reserve]:
    yield Reserve(gpu_name(gpu.minor), random.randint(300 * MIB, 1500 * MIB))
    for each in _instances(gpu):
        profile = gpu.mig.profile(each.profile_id) if gpu.mig else None
        assert profile is not None
        name = existing_name(gpu, profile, each, each.compute_instances[0])
        yield Reserve(name, random.randint(20 * MIB, 200 * MIB))


def _instances(gpu: Gpu) -> tuple[GpuInstance, ...]:
    return gpu.mig.instances if gpu.mig else ()
