"""Is each device of this node well? From the last reading of the hardware to the list that the kubelet is told. Pure.

A GPU that fails is missing from the reading or only a number in it, so devices are remembered: those of earlier
readings of this process, and those that prepared claims hold, which survive a restart in the checkpoint. MIG devices
are told only while claims hold them: before that, there is nothing that could be well or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from dra_driver.devices.naming import minor_of
from dra_driver.devices.offered import whole_gpus
from dra_driver.devices.policy import MigPolicy
from dra_driver.hardware.model import Machine
from kubelet_plugin.hardware.watch import HardwareState

_NO_TROUBLES: Mapping[str, str] = MappingProxyType({})
NOT_READ = "the hardware was not read yet"


class Health(Enum):
    UNKNOWN = auto()
    HEALTHY = auto()
    UNHEALTHY = auto()


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """``device``: the published name. ``message``: for people, and the same as long as the state is."""

    device: str
    health: Health
    message: str = ""


DeviceUuids = Mapping[str, str | None]
"""UUIDs of the GPUs behind devices, by device name; empty where a record was lost, None where there is no GPU."""


def device_health(
    hardware: HardwareState,
    known: DeviceUuids,
    held: DeviceUuids,
    troubles: Mapping[str, str] = _NO_TROUBLES,
    *,
    hanging: bool = False,
) -> tuple[DeviceHealth, ...]:
    """Every device of ``known`` (this reading and earlier ones) and of ``held`` (prepared claims), by name.

    ``troubles``: held devices that cannot be used though their GPU answers, and why. ``hanging``: the reading in
    progress does not come back.
    """
    # A claim's device stands for the GPU that the claim has, also when another one has come into its place.
    devices = {**held, **known, **{name: uuid for name, uuid in held.items() if uuid}}
    doubt = _doubt(hardware, hanging)
    if doubt:
        return tuple(DeviceHealth(name, Health.UNKNOWN, doubt) for name in sorted(devices))
    return tuple(_judge(name, devices[name], hardware, troubles) for name in sorted(devices))


def remember(known: DeviceUuids, machine: Machine | None, policy: MigPolicy, node: str) -> DeviceUuids:
    """``known`` and the GPUs of ``machine`` that are offered as a whole. A GPU that is there is no longer known by an
    earlier name, nor at all once it is not offered as a whole."""
    if machine is None:
        return known
    there = {gpu.uuid for gpu in machine.gpus}
    away = {name: uuid for name, uuid in known.items() if uuid not in there}
    return {**away, **whole_gpus(machine, policy, node)}


def _doubt(hardware: HardwareState, hanging: bool) -> str:
    if hardware.problem:
        return hardware.problem
    if hanging:
        return "the hardware does not answer: a reading hangs"
    return "" if hardware.machine else NOT_READ


def _judge(name: str, uuid: str | None, hardware: HardwareState, troubles: Mapping[str, str]) -> DeviceHealth:
    gpus = hardware.machine.gpus if hardware.machine else ()
    minor = minor_of(name)
    if uuid is None or any(gpu.uuid == uuid if uuid else gpu.minor == minor for gpu in gpus):
        if name in troubles:
            return DeviceHealth(name, Health.UNHEALTHY, troubles[name])
        return DeviceHealth(name, Health.HEALTHY)
    of_this = [problem.message for problem in hardware.gpu_problems if uuid and problem.uuid == uuid]
    if of_this:
        return DeviceHealth(name, Health.UNHEALTHY, "; ".join(of_this))
    # NVML names no GPU that was lost before this process first read it; then this may be one of those.
    reasons = [f"{uuid or name} is not among the GPUs that answer", *_nameless(hardware)]
    return DeviceHealth(name, Health.UNHEALTHY, "; ".join(reasons))


def _nameless(hardware: HardwareState) -> Iterator[str]:
    return (f"GPU {each.index}: {each.message}" for each in hardware.gpu_problems if each.uuid is None)
