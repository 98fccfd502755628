"""Fractions that cannot be had as they are asked for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from api.claim_config import ClaimConfig, ClientPriority, FractionConfig, GpuConfig, MigDeviceConfig
from api.fractions import ENFORCEMENT, Enforcement, SharingBackend, suffices
from api.memory import in_bytes
from dra_driver.quantity import Quantity
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.kinds.fence.step import fences_in
from kubelet_plugin.kinds.fractions import Fraction
from kubelet_plugin.prepare.kind import ClaimDevice, Refusal

_MINIMUM, _LIMIT, _PRIORITY = "minimumEnforcement", "memoryLimit", "priority"
_ONE_TO_A_CONTAINER = (SharingBackend.MPS, SharingBackend.MPS_NAMESPACE)


def settings_of(config: ClaimConfig) -> FractionConfig:
    """What a share's configuration says of its fence; the defaults for NVIDIA's kinds."""
    return config if isinstance(config, FractionConfig) else FractionConfig().normalize()


def refused_settings(
    device: ClaimDevice, fraction: Fraction, backends: Sequence[SharingBackend], memory: int | None
) -> Refusal | None:
    """``backends``: what fences it, the strongest first. ``memory``: bytes of the whole device, as far as known."""
    return next(_refused_settings(device, fraction, backends, memory), None)


def _refused_settings(
    device: ClaimDevice, fraction: Fraction, backends: Sequence[SharingBackend], memory: int | None
) -> Iterator[Refusal]:
    name, config, backend = device.allocated.device, settings_of(device.config), backends[0]
    by_mps = any(each in _ONE_TO_A_CONTAINER for each in backends)
    minimum = config.minimum_enforcement or Enforcement.COOPERATIVE
    if isinstance(device.config, GpuConfig | MigDeviceConfig) and device.config.sharing is not None:
        why = f"{device.config.sharing.strategy} cannot be asked for on {name}, which is offered in fractions"
        yield Refusal("sharing.strategy", device.config.sharing.strategy, "remove sharing", why=why)
    if not suffices(backend, minimum):
        yield Refusal(_MINIMUM, minimum, _weaker(backend), why=_why_weak(name, backend, minimum))
    if config.memory_limit is not None:
        yield from _refused_limit(name, config.memory_limit, fraction, backend, memory)
    if fraction.compute and backend is SharingBackend.CGROUP and not by_mps:
        why = f"nothing on this node can hold a share of {name} to {fraction.compute} percent, which MPS would do"
        advice = "ask for no compute, or have your administrator switch the MPS supervisor on"
        yield Refusal("capacity.requests.compute", str(fraction.compute), advice, why=why)
    if config.priority is ClientPriority.LOW and not by_mps:
        why = f"{name} is fenced by {backend} on this node, which knows no priorities"
        yield Refusal(_PRIORITY, ClientPriority.LOW, "remove it, or select a device whose fence is MPS", why=why)


def refused_beside(
    device: ClaimDevice,
    backends: Collection[SharingBackend],
    beside: Iterable[tuple[ClaimDevice, Collection[SharingBackend]]],
) -> Refusal | None:
    """Two shares of one claim may be in one container, which has one set of MPS variables and one pipe directory."""
    if not any(each in _ONE_TO_A_CONTAINER for each in backends):
        return None
    for other, theirs in beside:
        if any(each in _ONE_TO_A_CONTAINER for each in theirs):
            why = (
                f"claim {device.claim} has fractions of {other.allocated.device} (request {other.allocated.request}) "
                f"and of {device.allocated.device} (request {device.allocated.request}), which MPS fences on this "
                "node, and a container can be held to the limits of one"
            )
            advice = "ask for one larger fraction, or for the two in two claims, each for containers of its own"
            return Refusal("requests", "two fractions", advice, why=why)
    return None


def refused_together(
    device: ClaimDevice,
    fraction: Fraction,
    memory: int | None,
    beside: Iterable[Fraction],
    others: Sequence[ClaimEntry],
) -> Refusal | None:
    """What is held already and this one are more than there is: a second scheduler, or one that counts otherwise.
    ``beside``: the claim's other fractions of the device."""
    name = device.allocated.device
    own = [fraction, *beside]
    asked_memory, asked_compute = sum(each.memory for each in own), sum(each.compute for each in own)
    # A share may have several fences, of the same size.
    held = {
        (entry.holder, fence.share_id): fence
        for entry in others
        for fence in fences_in(entry.steps)
        if fence.device == name
    }
    if not held and len(own) == 1:
        return None
    taken = sum(fence.memory for fence in held.values())
    percent = sum(fence.compute for fence in held.values())
    holder, _share = list(held)[-1] if held else (f"{device.claim} itself", "")
    if memory is not None and taken + asked_memory > memory:
        asked, there = Quantity.binary(asked_memory), Quantity.binary(max(0, memory - taken))
        advice = f"{name} has {there} left on this node: {_UNTIL}"
        return Refusal("capacity.requests.memory", str(asked), advice, holder)
    if percent + asked_compute > 100:
        advice = f"{name} has {100 - percent} percent left on this node: {_UNTIL}"
        return Refusal("capacity.requests.compute", str(asked_compute), advice, holder)
    return None


_UNTIL = "the scheduler has counted otherwise; it can be had when other claims on it have ended"


def _refused_limit(
    name: str, limit: str, fraction: Fraction, backend: SharingBackend, memory: int | None
) -> Iterator[Refusal]:
    size, counted = in_bytes(limit), Quantity.binary(fraction.memory)
    if backend is not SharingBackend.CGROUP:
        why = f"{name} is fenced by {backend} on this node, where nothing can be above what was counted ({counted})"
        yield Refusal(_LIMIT, limit, "remove it, or select a device whose sharingBackend is Cgroup", why=why)
    elif size < fraction.memory:
        yield Refusal(_LIMIT, limit, f"ask for {counted} or more", why=f"is below what was counted, {counted}")
    elif memory is not None and size > memory:
        there = Quantity.binary(memory)
        yield Refusal(_LIMIT, limit, f"ask for {there} at most", why=f"is more than {name} has, {there}")


def _why_weak(name: str, backend: SharingBackend, minimum: Enforcement) -> str:
    has = "has nothing to fence it with" if backend is SharingBackend.NONE else f"fences it by {backend}"
    level = ENFORCEMENT[backend]
    return f"a share of {name} must be {minimum.lower()}, and this node {has} (sharingEnforcement {level})"


def _weaker(backend: SharingBackend) -> str:
    level = ENFORCEMENT[backend]
    accept = f"a FractionConfig with minimumEnforcement: {level}"
    return f"select devices by the attribute sharingEnforcement, or accept what this node has by {accept}"
