"""The recorded machines as frozen values of the hardware model, read from their files without NVML in between."""

from __future__ import annotations

from dataclasses import replace

from dra_driver.hardware.model import Gpu, GpuInstance, Machine, MigPlacement, MigProfile, MigState
from dra_driver.simulation.hardware.description import (
    HardwareDescription,
    ProfileDescription,
    load_machine,
    recorded_machines,
)
from tests.cdi.driver_root import VERSION

_MIG_MACHINES = tuple(name for name in recorded_machines() if load_machine(name).hardware.products[0].mig_profiles)


def mig_machines() -> tuple[str, ...]:
    """Names of the recorded machines whose GPUs have MIG."""
    return _MIG_MACHINES


def recorded_profiles(machine: str) -> tuple[MigProfile, ...]:
    """The profiles of the first GPU of a recorded machine that has MIG, in the file's order."""
    described = load_machine(machine).hardware.product_of(0).mig_profiles
    if described is None:
        raise ValueError(f"{machine} has no MIG")
    return tuple(map(_profile, described))


def recorded_gpu(machine: str, *instances: GpuInstance, enabled: bool = True) -> Gpu:
    """The first GPU of a recorded machine, with these instances; its UUID is ``GPU-<machine>``."""
    gpu = _gpu(load_machine(machine).hardware, 0, enabled)
    return with_instances(replace(gpu, uuid=f"GPU-{machine}"), *instances)


def recorded(machine: str, gpus: int | None = None, *, mig_on: bool = False) -> Machine:
    """The first ``gpus`` GPUs of a recorded machine, with minors from 0, UUIDs ``GPU-<minor>`` and no instances.

    Its driver is the one whose files :func:`tests.cdi.driver_root.small_root` makes.
    """
    hardware = load_machine(machine).hardware
    found = (_gpu(hardware, index, mig_on) for index in range(len(hardware.gpus))[:gpus])
    return Machine(
        VERSION,
        hardware.cuda_driver_version,
        tuple(replace(gpu, minor=index, uuid=f"GPU-{index}") for index, gpu in enumerate(found)),
    )


def with_instances(gpu: Gpu, *instances: GpuInstance) -> Gpu:
    return gpu if gpu.mig is None else replace(gpu, mig=replace(gpu.mig, instances=instances))


def _gpu(hardware: HardwareDescription, index: int, mig_on: bool) -> Gpu:
    product, entry = hardware.product_of(index), hardware.gpus[index]
    profiles = None if product.mig_profiles is None else tuple(map(_profile, product.mig_profiles))
    return Gpu(
        index=index,
        minor=entry.minor,
        uuid=f"GPU-{index}",
        product_name=product.name,
        brand=product.brand,
        architecture=product.architecture,
        cuda_compute_capability=product.cuda_compute_capability,
        pci_bus_id=entry.pci_bus_id,
        memory_bytes=product.memory_bytes,
        pci_device_id=int(product.pci_device_id, 16) if product.pci_device_id else None,
        mig=None if profiles is None else MigState(mig_on, mig_on, profiles),
    )


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
