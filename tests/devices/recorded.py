"""GPUs of the recorded machines as the hardware model has them, without a simulated library."""

from __future__ import annotations

from dataclasses import replace

from dra_driver.hardware.model import Gpu, GpuInstance, MigPlacement, MigProfile, MigState
from dra_driver.hardware.simulated.description import ProfileDescription, load_machine, recorded_machines

_MIG_MACHINES = tuple(name for name in recorded_machines() if load_machine(name).hardware.products[0].mig_profiles)


def mig_machines() -> tuple[str, ...]:
    """Names of the recorded machines whose GPUs have MIG."""
    return _MIG_MACHINES


def recorded_gpu(machine: str, *instances: GpuInstance, enabled: bool = True) -> Gpu:
    """The first GPU of a recorded machine, with these instances."""
    hardware = load_machine(machine).hardware
    product, entry = hardware.products[0], hardware.gpus[0]
    profiles = tuple(map(_profile, product.mig_profiles or ()))
    return Gpu(
        index=0,
        minor=entry.minor,
        uuid=f"GPU-{machine}",
        product_name=product.name,
        brand=product.brand,
        architecture=product.architecture,
        cuda_compute_capability=product.cuda_compute_capability,
        pci_bus_id=entry.pci_bus_id,
        memory_bytes=product.memory_bytes,
        pci_device_id=int(product.pci_device_id, 16) if product.pci_device_id else None,
        mig=MigState(enabled, enabled, profiles, instances) if profiles else None,
    )


def with_instances(gpu: Gpu, *instances: GpuInstance) -> Gpu:
    assert gpu.mig is not None
    return replace(gpu, mig=replace(gpu.mig, instances=instances))


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
