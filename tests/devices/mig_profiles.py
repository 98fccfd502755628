"""MIG profiles of the recorded machines, read from their files without NVML in between."""

from __future__ import annotations

from dra_driver.hardware.model import MigPlacement, MigProfile
from dra_driver.hardware.simulated.description import ProfileDescription, load_machine, recorded_machines


def machines_with_mig() -> tuple[str, ...]:
    return tuple(name for name in recorded_machines() if load_machine(name).hardware.product_of(0).mig_profiles)


def recorded_profiles(machine: str) -> tuple[MigProfile, ...]:
    """The profiles of the first GPU of a recorded machine that has MIG, in the file's order."""
    described = load_machine(machine).hardware.product_of(0).mig_profiles
    if described is None:
        raise ValueError(f"{machine} has no MIG")
    return tuple(_profile(entry) for entry in described)


def _profile(entry: ProfileDescription) -> MigProfile:
    return MigProfile(
        name=entry.name,
        id=entry.id,
        enum_index=entry.enum_index,
        slice_count=entry.slices,
        instance_count=entry.instances,
        memory_mib=entry.memory_mib,
        multiprocessors=entry.multiprocessors,
        copy_engines=entry.copy_engines,
        decoders=entry.decoders,
        encoders=entry.encoders,
        jpeg_engines=entry.jpeg_engines,
        ofa_engines=entry.ofa_engines,
        placements=tuple(MigPlacement(start, entry.placements.size) for start in entry.placements.starts),
        p2p_supported=entry.p2p,
    )
