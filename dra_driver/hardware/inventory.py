"""Machine to NodeInventory status and back, without loss.

What all GPUs of one product share is stored once per product, and placements as starts of one size, so that an 8-GPU
node stays below 10 KB of JSON. Pure.
"""

from __future__ import annotations

from api.fractions import SharingBackend
from api.node_inventory import (
    ComputeInstanceEntry,
    GpuEntry,
    MachineStatus,
    MigInstanceEntry,
    MigModeState,
    MigProfileEntry,
    PlacementRange,
    Product,
    RefusedPlacementEntry,
    ReserveEntry,
    UnhealthyMpsEntry,
)
from dra_driver.hardware.model import (
    ComputeInstance,
    Gpu,
    GpuInstance,
    Machine,
    MigPlacement,
    MigProfile,
    MigState,
    RefusedPlacement,
    Reserve,
    UnhealthyMps,
)

# (enabled now, enabled after the next reset) by the word that a person reads.
_MODES: dict[MigModeState, tuple[bool, bool]] = {
    "Enabled": (True, True),
    "Disabled": (False, False),
    "EnabledPending": (False, True),
    "DisabledPending": (True, False),
}


def machine_to_status(machine: Machine) -> MachineStatus:
    """ValueError when a profile's placements differ in size, which NVML never reports."""
    products: list[Product] = []
    entries: list[GpuEntry] = []
    for gpu in machine.gpus:
        product = _product(gpu)
        if product not in products:
            products.append(product)
        entries.append(_gpu_entry(gpu, products.index(product)))
    return MachineStatus(
        driver_version=machine.driver_version,
        cuda_driver_version=machine.cuda_driver_version,
        products=products,
        gpus=entries,
        fences=[each.value for each in machine.fences] or None,
    )


def machine_from_status(status: MachineStatus) -> Machine:
    """ValueError when a GPU names a product that is not there."""
    return Machine(
        driver_version=status.driver_version,
        cuda_driver_version=status.cuda_driver_version,
        gpus=tuple(_gpu(entry, status) for entry in status.gpus),
        # Of another version, which knows more of them, those that we know too.
        fences=tuple(each for each in SharingBackend if each.value in (status.fences or ())),
    )


def _product(gpu: Gpu) -> Product:
    return Product(
        name=gpu.product_name,
        brand=gpu.brand,
        architecture=gpu.architecture,
        cuda_compute_capability=gpu.cuda_compute_capability,
        memory_bytes=gpu.memory_bytes,
        addressing_mode=gpu.addressing_mode,
        pciDeviceID=None if gpu.pci_device_id is None else f"{gpu.pci_device_id:#010x}",
        mig_profiles=None if gpu.mig is None else [_profile_entry(profile) for profile in gpu.mig.profiles],
    )


def _profile_entry(profile: MigProfile) -> MigProfileEntry:
    sizes = {placement.size for placement in profile.placements}
    if len(sizes) > 1:
        raise ValueError(f"placements of MIG profile {profile.name} differ in size: {sorted(sizes)}")
    return MigProfileEntry(
        name=profile.name,
        id=profile.id,
        enum_index=profile.enum_index,
        slices=profile.slice_count,
        instances=profile.instance_count,
        memoryMiB=profile.memory_mib,  # the alias: what pydantic tells type checkers to expect
        multiprocessors=profile.multiprocessors,
        engines=[
            profile.copy_engines,
            profile.decoders,
            profile.encoders,
            profile.jpeg_engines,
            profile.ofa_engines,
        ],
        p2p=profile.p2p_supported or None,
        placements=PlacementRange(
            size=next(iter(sizes), 0), starts=[placement.start for placement in profile.placements]
        ),
    )


def _gpu_entry(gpu: Gpu, product: int) -> GpuEntry:
    mode: MigModeState | None = None
    if gpu.mig is not None:
        state = (gpu.mig.enabled, gpu.mig.pending)
        mode = next(word for word, meaning in _MODES.items() if meaning == state)
    return GpuEntry(
        index=gpu.index,
        minor=gpu.minor,
        uuid=gpu.uuid,
        product=product,
        pciBusID=gpu.pci_bus_id,
        pcie_root=gpu.pcie_root,
        numa_node=gpu.numa_node,
        mig=mode,
        mig_instances=[_instance_entry(each) for each in gpu.mig.instances] or None if gpu.mig else None,
        mig_refused=[_refused_entry(each) for each in gpu.mig.refused] or None if gpu.mig else None,
        mps_unhealthy=[UnhealthyMpsEntry(device=each.device, message=each.message) for each in gpu.mps_unhealthy]
        or None,
        unfenced=list(gpu.unfenced) or None,
        reserves=[ReserveEntry(device=each.device, bytes=each.bytes) for each in gpu.reserves] or None,
    )


def _instance_entry(instance: GpuInstance) -> MigInstanceEntry:
    return MigInstanceEntry(
        id=instance.id,
        profile=instance.profile_id,
        profile_name=instance.profile_name,
        start=instance.placement.start,
        size=instance.placement.size,
        compute=[
            ComputeInstanceEntry(id=each.id, uuid=each.uuid, slices=each.slices, start=each.start)
            for each in instance.compute_instances
        ],
        foreign=instance.foreign or None,
    )


def _refused_entry(refused: RefusedPlacement) -> RefusedPlacementEntry:
    return RefusedPlacementEntry(
        profile=refused.profile_id,
        start=refused.placement.start,
        size=refused.placement.size,
        message=refused.message,
    )


def _gpu(entry: GpuEntry, status: MachineStatus) -> Gpu:
    if not 0 <= entry.product < len(status.products):
        raise ValueError(f"GPU {entry.uuid} names product {entry.product}, but there are {len(status.products)}")
    product = status.products[entry.product]
    return Gpu(
        index=entry.index,
        minor=entry.minor,
        uuid=entry.uuid,
        product_name=product.name,
        brand=product.brand,
        architecture=product.architecture,
        cuda_compute_capability=product.cuda_compute_capability,
        pci_bus_id=entry.pci_bus_id,
        memory_bytes=product.memory_bytes,
        addressing_mode=product.addressing_mode,
        pcie_root=entry.pcie_root,
        numa_node=entry.numa_node,
        pci_device_id=None if product.pci_device_id is None else int(product.pci_device_id, 16),
        mig=_mig(entry, product),
        mps_unhealthy=tuple(UnhealthyMps(each.device, each.message) for each in entry.mps_unhealthy or ()),
        unfenced=tuple(entry.unfenced or ()),
        reserves=tuple(Reserve(each.device, each.bytes) for each in entry.reserves or ()),
    )


def _mig(entry: GpuEntry, product: Product) -> MigState | None:
    if entry.mig is None:
        return None
    enabled, pending = _MODES[entry.mig]
    return MigState(
        enabled=enabled,
        pending=pending,
        profiles=tuple(_profile(profile) for profile in product.mig_profiles or ()),
        instances=tuple(map(_instance, entry.mig_instances or ())),
        refused=tuple(
            RefusedPlacement(each.profile, MigPlacement(each.start, each.size), each.message)
            for each in entry.mig_refused or ()
        ),
    )


def _instance(entry: MigInstanceEntry) -> GpuInstance:
    return GpuInstance(
        id=entry.id,
        profile_id=entry.profile,
        profile_name=entry.profile_name,
        placement=MigPlacement(entry.start, entry.size),
        compute_instances=tuple(ComputeInstance(each.id, each.uuid, each.slices, each.start) for each in entry.compute),
        foreign=bool(entry.foreign),
    )


def _profile(entry: MigProfileEntry) -> MigProfile:
    copy, decoders, encoders, jpeg, ofa = entry.engines
    return MigProfile(
        name=entry.name,
        id=entry.id,
        enum_index=entry.enum_index,
        slice_count=entry.slices,
        instance_count=entry.instances,
        memory_mib=entry.memory_mib,
        multiprocessors=entry.multiprocessors,
        copy_engines=copy,
        decoders=decoders,
        encoders=encoders,
        jpeg_engines=jpeg,
        ofa_engines=ofa,
        placements=tuple(MigPlacement(start, entry.placements.size) for start in entry.placements.starts),
        p2p_supported=bool(entry.p2p),
    )
