"""Taints of devices that cannot be created now, because of what the hardware holds or because it refused. Pure.

Only of GPUs whose MIG devices are created by claims. Instances that claims made taint nothing: the scheduler knows
about them by the counters, and a taint would mean a slice write for each claim that comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dra_driver.devices.mig_gpu import MigGpu
from dra_driver.devices.mig_resources import consumption, counter_set
from dra_driver.devices.model import Taint
from dra_driver.devices.naming import profile_label
from dra_driver.hardware.model import GpuInstance, MigPlacement, MigProfile

FOREIGN: Final = "foreign-mig-instance"
"""A GPU instance that no claim made is in the way. The value is its profile, as in device names."""

REFUSED: Final = "mig-placement-refused"
"""The hardware refused to create the GPU instance although it listed nothing in the way."""

_NO_SCHEDULE = "NoSchedule"


def whole_gpu_taints(of: MigGpu) -> tuple[Taint, ...]:
    """Any foreign instance is in the way of the whole GPU."""
    foreign = next(_foreign(of), None)
    return () if foreign is None else (_foreign_taint(of, foreign),)


def placement_taints(of: MigGpu, profile: MigProfile, placement: MigPlacement) -> tuple[Taint, ...]:
    """The taints of the devices of one profile at one placement."""
    return tuple(_placement_taints(of, profile, placement))


def _placement_taints(of: MigGpu, profile: MigProfile, placement: MigPlacement) -> Iterator[Taint]:
    blocking = _blocking(of, profile, placement)
    if blocking is not None:
        yield _foreign_taint(of, blocking)
    if any(each.profile_id == profile.id and each.placement == placement for each in of.state.refused):
        yield Taint(of.policy.taint_key(REFUSED), "", _NO_SCHEDULE)


def _blocking(of: MigGpu, profile: MigProfile, placement: MigPlacement) -> GpuInstance | None:
    """The first foreign instance that leaves too little: memory slices that overlap, or engines (one GPU instance with
    the media extensions excludes a second one wherever it lies)."""
    foreign = tuple(_foreign(of))
    if not foreign:
        return None
    left = dict(counter_set(of.gpu, of.state).counters)
    wanted = consumption(of.gpu, profile, placement).counters
    for instance in foreign:
        if instance.placement.overlaps(placement):
            return instance
        taken = of.state.profile(instance.profile_id)
        for name, quantity in consumption(of.gpu, taken, instance.placement).counters.items() if taken else ():
            left[name] -= quantity
        if any(left[name] < quantity for name, quantity in wanted.items()):
            return instance
    return None


def _foreign(of: MigGpu) -> Iterator[GpuInstance]:
    """The foreign instances that stay where they are, by placement."""
    if not of.mig.adopt_foreign:
        yield from (instance for instance in of.state.instances if instance.foreign)


def _foreign_taint(of: MigGpu, instance: GpuInstance) -> Taint:
    return Taint(of.policy.taint_key(FOREIGN), profile_label(instance.profile_name), _NO_SCHEDULE)
