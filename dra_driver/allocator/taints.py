"""Device taints against a request's tolerations (k8s.io/dynamic-resource-allocation/resourceclaim, ToleratesTaint)."""

from __future__ import annotations

from collections.abc import Iterable

from dra_driver.allocator.model import Device, Taint, Toleration

_BLOCKING = ("NoSchedule", "NoExecute")  # effect None only informs


def blocking_taint(device: Device, tolerations: Iterable[Toleration]) -> Taint | None:
    """The first taint that keeps the device from being allocated, or None.

    Tolerating NoExecute does not tolerate NoSchedule: each taint needs a toleration that covers its own effect.
    """
    wanted = tuple(tolerations)
    for taint in device.taints:
        if taint.effect in _BLOCKING and not any(tolerates(toleration, taint) for toleration in wanted):
            return taint
    return None


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return toleration.operator == "Equal" and toleration.value == taint.value
