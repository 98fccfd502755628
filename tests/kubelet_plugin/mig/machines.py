"""Recorded machines as frozen values, without NVML: GPU ``n`` has UUID ``GPU-n``."""

from __future__ import annotations

from dra_driver.hardware.model import Gpu, Machine, MigPlacement, MigProfile, MigState
from dra_driver.hardware.simulated import load_machine, recorded_machines
from dra_driver.hardware.simulated.description import ProductDescription, ProfileDescription
from tests.cdi.driver_root import VERSION


def recorded(name: str, gpus: int | None = None, *, mig_on: bool = False) -> Machine:
    """The first ``gpus`` GPUs of the machine, with minors from 0, without instances."""
    hardware = load_machine(name).hardware
    return Machine(
        VERSION,
        hardware.cuda_driver_version,
        tuple(
            _gpu(minor, hardware.products[gpu.product], gpu.pci_bus_id, mig_on)
            for minor, gpu in enumerate(hardware.gpus[:gpus])
        ),
    )


def mig_machines() -> tuple[str, ...]:
    """The names of all recorded machines whose GPUs have MIG."""
    return tuple(
        name
        for name in recorded_machines()
        if any(product.mig_profiles for product in load_machine(name).hardware.products)
    )


def _gpu(minor: int, product: ProductDescription, bus_id: str, mig_on: bool) -> Gpu:
    profiles = product.mig_profiles
    return Gpu(
        index=minor,
        minor=minor,
        uuid=f"GPU-{minor}",
        product_name=product.name,
        brand=product.brand,
        architecture=product.architecture,
        cuda_compute_capability=product.cuda_compute_capability,
        pci_bus_id=bus_id,
        memory_bytes=product.memory_bytes,
        mig=None if profiles is None else MigState(mig_on, mig_on, tuple(map(_profile, profiles))),
    )


def _profile(profile: ProfileDescription) -> MigProfile:
    size = profile.placements.size
    return MigProfile(
        name=profile.name,
        id=profile.id,
        enum_index=profile.enum_index,
        slice_count=profile.slices,
        instance_count=profile.instances,
        memory_mib=profile.memory_mib,
        multiprocessors=profile.multiprocessors,
        copy_engines=profile.copy_engines,
        decoders=profile.decoders,
        encoders=profile.encoders,
        jpeg_engines=profile.jpeg_engines,
        ofa_engines=profile.ofa_engines,
        placements=tuple(MigPlacement(start, size) for start in profile.placements.starts),
    )
