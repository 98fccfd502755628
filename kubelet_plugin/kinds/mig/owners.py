"""Whose an instance on the hardware is: the claims of the checkpoint, by what their devices' names say. Pure.

A claim owns the places of its devices from the moment its record is durable, which is before anything is made there,
until the record is gone, which is after everything was taken away. So what no claim owns, no claim made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dra_driver.devices.naming import MigName, read_name
from dra_driver.hardware.model import Gpu, GpuInstance, Machine
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice

_Spot = tuple[str, int, int]  # GPU, profile id, placement start


@dataclass(frozen=True, slots=True)
class Owners:
    """Claims by the GPU instances that they have or are about to have."""

    _by_spot: Mapping[_Spot, ClaimEntry]

    def of(self, gpu_uuid: str, instance: GpuInstance) -> ClaimEntry | None:
        return self._by_spot.get((gpu_uuid, instance.profile_id, instance.placement.start))


def owners(entries: Iterable[ClaimEntry], machine: Machine, boot_id: str) -> Owners:
    """The owners in this boot: no instance of an earlier one is still there. ``machine``: for lost records."""
    return Owners({spot: entry for entry in entries if entry.boot_id == boot_id for spot in _spots(entry, machine)})


def held_mig_devices(
    devices: Iterable[HeldDevice], machine: Machine
) -> Iterator[tuple[HeldDevice, MigName, Gpu | None]]:
    """The MIG devices among those of a claim that it has other than by admin access, with their GPU where known."""
    for held in devices:
        name = None if held.admin_access else read_name(held.prepared.device_name)
        if isinstance(name, MigName):
            yield held, name, _gpu(held, name, machine)


def _gpu(held: HeldDevice, name: MigName, machine: Machine) -> Gpu | None:
    return machine.with_uuid(held.gpu_uuid) if held.gpu_uuid else machine.with_minor(name.minor)


def _spots(entry: ClaimEntry, machine: Machine) -> Iterator[_Spot]:
    for held, name, gpu in held_mig_devices(entry.devices, machine):
        uuid = gpu.uuid if gpu else held.gpu_uuid
        yield uuid, name.profile_id, name.start
