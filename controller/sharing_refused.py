"""What rules want shared and a node offers otherwise, in sentences for people. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.problem import some_of
from dra_driver.devices.model import AllocatableDevice, DeviceKind, DeviceSet
from dra_driver.devices.naming import gpu_name
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.shares import MEMORY, Refused, sharing_of
from dra_driver.devices.sharing import Fractions
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.quantity import Quantity

_MADE_BY_CLAIMS = (
    "claims create them, and each takes its own away again. Let an administrator make them (a rule with mode: static "
    "in spec.mig)"
)
_NOT_MEASURED = (
    "what driver and MPS server need of the memory is measured in a moment without users, and there was none yet; "
    "until then it is offered as a whole"
)
_IN_MIG_MODE = (
    "in MIG mode nobody can measure what its driver keeps of its memory; it is offered as a whole until the mode is "
    "off, as after the last claim for a part of it, or by nvidia-smi -i INDEX -mig 0"
)


@dataclass(frozen=True, slots=True)
class _NotShared:
    """``of``: what of the devices named; empty for themselves."""

    of: str
    because: str


def not_shared(machine: Machine, offered: DeviceSet, policy: DevicePolicy, node: str) -> tuple[str, ...]:
    """One sentence for each reason, with all devices that it is about."""
    if not policy.sharing.rules:
        return ()
    devices: dict[_NotShared, list[str]] = defaultdict(list)
    for name, found in _found(machine, offered, policy, node):
        if name not in devices[found]:
            devices[found].append(name)
    return tuple(_sentence(found, names) for found, names in devices.items())


def _sentence(found: _NotShared, names: Sequence[str]) -> str:
    verb = "is" if len(names) == 1 and not found.of else "are"
    return f"{found.of}{some_of(names)} {verb} not shared: {found.because}"


def _found(machine: Machine, offered: DeviceSet, policy: DevicePolicy, node: str) -> Iterator[tuple[str, _NotShared]]:
    gpus = {gpu.uuid: gpu for gpu in machine.gpus}
    for device in offered.devices:
        gpu = gpus[device.gpu_uuid]
        profile = str(device.attributes["profile"]) if device.kind is DeviceKind.MIG else None
        sharing = sharing_of(policy, node, gpu, profile)
        if isinstance(sharing, Refused):
            yield device.name, _NotShared("", sharing.because)
        elif sharing is None or sharing == policy.sharing.otherwise or device.allow_multiple_allocations:
            continue
        elif device.kind is DeviceKind.MIG and "uuid" not in device.attributes:
            yield gpu_name(gpu.minor), _NotShared(f"MIG devices of {profile} on ", _MADE_BY_CLAIMS)
        elif isinstance(sharing, Fractions):
            yield device.name, _NotShared("", _undivided(device, gpu, sharing))


def _undivided(device: AllocatableDevice, gpu: Gpu, sharing: Fractions) -> str:
    memory = device.capacity.get(MEMORY)
    if memory is not None and memory.value.value() >= 2 * sharing.memory_step:
        in_mig_mode = gpu.mig is not None and gpu.mig.enabled
        return _IN_MIG_MODE if in_mig_mode and device.kind is DeviceKind.GPU else _NOT_MEASURED
    step = Quantity.binary(sharing.memory_step)
    return f"its memory is less than one step of {step}: set a smaller fractions.memoryStep"
