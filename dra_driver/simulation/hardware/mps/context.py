"""What a CUDA context may do: the devices, limits and share that a client gets from its server, and the words of CUDA.

Pure. A client's own environment can only lower what the server gives (NVIDIA's MPS documentation,
CUDA_MPS_ACTIVE_THREAD_PERCENTAGE and CUDA_MPS_PINNED_DEVICE_MEM_LIMIT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dra_driver.simulation.hardware.mps import values
from dra_driver.simulation.hardware.mps.devices import EXCLUSIVE_PROCESS, PROHIBITED, Device, User, visible

FAULT = b"fault"  # what a client says when a kernel of it fails
_UNSET = "-"


class Refused(Exception):
    """What cuCtxCreate or cuMemAlloc would answer; the text begins with the name of CUresult."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client says of itself: process (in its own namespace), and what its environment and options ask for."""

    pid: int
    devices: str | None
    percentage: float | None
    limits: Mapping[str, int]
    allocate: int


@dataclass(frozen=True, slots=True)
class Context:
    """What it gets. ``limits`` in bytes by UUID, where there is one; ``allocated`` bytes on each device.

    ``cgroup``: the client's, in which a device may have less memory than it has. The rest is of protocol 3
    (``namespace``); ``free`` in bytes by UUID.
    """

    devices: tuple[Device, ...]
    percentage: float
    limits: Mapping[str, int]
    allocated: int
    cgroup: str | None = None
    namespace: str = ""
    priority: int = 0
    free: Mapping[str, int] = field(default_factory=dict)


def parse_wish(text: str) -> Wish:
    """``PID DEVICES PERCENTAGE LIMITS ALLOCATE``, "-" for what is not set; a variable that is no value is as unset."""
    words = text.split()
    if len(words) != 5 or not words[0].isdigit():
        raise Refused(f"CUDA_ERROR_INVALID_VALUE: not understood: {text}")
    pid, devices, percentage, limits, allocate = words
    try:
        size = values.memory(allocate) if allocate != _UNSET else 0
    except values.Invalid as error:
        raise Refused(f"CUDA_ERROR_INVALID_VALUE: {error}") from error
    return Wish(
        pid=int(pid),
        devices=None if devices == _UNSET else devices,
        percentage=_environment_percentage(percentage),
        limits=_environment_limits(limits),
        allocate=size,
    )


def grant(
    wish: Wish,
    offered: Sequence[Device],
    percentage: float,
    limits: Mapping[str, int],
    used: Mapping[str, int],
    cgroup: str | None = None,
) -> Context:
    """The context of ``wish`` on ``offered``; ``limits`` and ``used`` (by others) in bytes by UUID. Refused if none.

    ``cgroup``: the client's, as far as it can be told.
    """
    devices, _ = visible(tuple(offered), wish.devices)
    if not devices:
        raise Refused("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")
    if lost := [device.uuid for device in devices if device.lost]:
        raise Refused(f"CUDA_ERROR_DEVICE_UNAVAILABLE: {lost[0]} is lost")
    own = {device.uuid: size for key, size in wish.limits.items() for device in visible(devices, key)[0]}
    lowest = {
        device.uuid: min(each[device.uuid] for each in (limits, own) if device.uuid in each)
        for device in devices
        if device.uuid in limits or device.uuid in own
    }
    for device in devices:
        left = None if device.memory is None else device.memory - used.get(device.uuid, 0)
        _require_memory(device, wish.allocate, (lowest.get(device.uuid), left))
        require_within(device, wish.allocate, cgroup)
    share = percentage if wish.percentage is None else min(percentage, wish.percentage)
    return Context(devices, share, lowest, wish.allocate, cgroup)


def require_within(device: Device, allocate: int, cgroup: str | None) -> None:
    """Refused when the limits of ``cgroup`` and of those above it do not leave so much of the device."""
    _require_memory(device, allocate, (device.left(cgroup),))


def require_free(device: Device, users: Sequence[User]) -> None:
    """Refused when compute mode lets no process use the device beside ``users``."""
    if device.compute_mode == PROHIBITED or (device.compute_mode == EXCLUSIVE_PROCESS and users):
        raise Refused(f"CUDA_ERROR_DEVICE_UNAVAILABLE: {device.uuid} is busy or unavailable")


def describe(context: Context) -> list[str]:
    """What the client prints of it."""
    lines = []
    for number, device in enumerate(context.devices):
        limit, memory = context.limits.get(device.uuid), device.reported(context.cgroup)
        lines += [
            f"device.{number}={device.uuid}",
            f"memory.{number}={'unified' if memory is None else f'{memory >> 20}M'}",
            f"memory_limit.{number}={'none' if limit is None else values.memory_text(limit)}",
        ]
        if device.uuid in context.free:
            lines.append(f"memory_free.{number}={context.free[device.uuid] >> 20}M")
    if context.namespace:
        lines += [f"namespace={context.namespace}", f"client_priority={context.priority}"]
    return [*lines, f"allocated={context.allocated >> 20}M"]


def _require_memory(device: Device, asked: int, most: Iterable[int | None]) -> None:
    there = min((each for each in most if each is not None), default=asked)
    if asked > there:
        raise Refused(
            f"CUDA_ERROR_OUT_OF_MEMORY: out of memory on {device.uuid}: "
            f"asked for {values.memory_text(asked)}, {there >> 20}M may be had"
        )


def _environment_percentage(text: str) -> float | None:
    try:
        return None if text == _UNSET else values.percentage(text)
    except values.Invalid:
        return None


def _environment_limits(text: str) -> dict[str, int]:
    try:
        return {} if text == _UNSET else values.limits(text)
    except values.Invalid:
        return {}
