"""A MIG device as a name stands for it on this machine: where it is, its GPU, and the GPU's policy."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.devices.policy import GpuMigPolicy
from dra_driver.hardware.model import Gpu
from kubelet_plugin.kinds.mig.place import MigPlace
from kubelet_plugin.prepare.kind import Place


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A ``prepare.kind.Place``. ``replica``: which of the devices that stand for it and do not exclude each other; None
    for the device itself."""

    gpu: Gpu
    at: MigPlace
    policy: GpuMigPolicy
    replica: int | None = None

    @property
    def gpu_uuid(self) -> str:
        return self.gpu.uuid

    def excludes(self, other: Place) -> bool:
        if not isinstance(other, MigDevice):
            return False
        beside = self.at == other.at and self.replica is not None and other.replica is not None
        return self.at.excludes(other.at) and not beside


def mig_of(place: Place) -> MigDevice:
    """``place`` as what this kind has found. Raises TypeError for another kind's."""
    if not isinstance(place, MigDevice):
        raise TypeError(f"{place} is no MIG device")
    return place
