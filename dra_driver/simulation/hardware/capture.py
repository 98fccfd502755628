"""Writes down a real node's hardware as a machine description, for simulation elsewhere.

UUIDs and serial numbers are left out: they identify somebody's boards, and a simulation derives its own. Everything
else is what NVML and sysfs said, so nothing in the file is interpolated.
"""

from __future__ import annotations

from typing import Protocol

from dra_driver.hardware.model import Gpu, GpuInstance, Machine, MigProfile, MigState
from dra_driver.hardware.nvml import Board
from dra_driver.simulation.hardware.description import (
    ClocksDescription,
    ComputeInstanceDescription,
    GpuDescription,
    HardwareDescription,
    MachineDescription,
    MigDescription,
    MigInstanceDescription,
    Placements,
    ProductDescription,
    ProfileDescription,
)


class BoardReader(Protocol):
    """:class:`dra_driver.hardware.nvml.NvmlHardware` is one."""

    def read_board(self, gpu: Gpu) -> Board: ...


def describe(machine: Machine, boards: BoardReader, *, name: str, title: str, source: str) -> MachineDescription:
    """``machine`` as a description. ``source`` says where and when it was captured.

    NvmlCallError when a board cannot be read; ValueError when two GPUs contradict each other.
    """
    products: list[ProductDescription] = []
    gpus: list[GpuDescription] = []
    for gpu in machine.gpus:
        product = _product(gpu, boards.read_board(gpu))
        if product not in products:
            products.append(product)
        gpus.append(
            GpuDescription(
                minor=gpu.minor,
                pciBusID=gpu.pci_bus_id,
                product=products.index(product),
                pcie_root=gpu.pcie_root,
                numa_node=gpu.numa_node,
                mig=_mig(gpu.mig),
            )
        )
    hardware = HardwareDescription(
        driver_version=machine.driver_version,
        cuda_driver_version=machine.cuda_driver_version,
        products=tuple(products),
        gpus=tuple(gpus),
    )
    return MachineDescription(name=name, title=title, hardware=hardware, sources=(source,))


def _product(gpu: Gpu, board: Board) -> ProductDescription:
    return ProductDescription(
        name=gpu.product_name,
        brand=gpu.brand,
        architecture=gpu.architecture,
        cuda_compute_capability=gpu.cuda_compute_capability,
        memory_bytes=gpu.memory_bytes,
        addressing_mode=gpu.addressing_mode,
        pciDeviceID=f"0x{board.pci_device_id:08x}",
        pciSubsystemID=None if board.pci_subsystem_id is None else f"0x{board.pci_subsystem_id:08x}",
        power_limit_milliwatts=board.power_limit_milliwatts,
        max_clocks=_clocks(board),
        # A profile that fits nowhere on this board cannot be simulated, nor can anybody use it.
        mig_profiles=None if gpu.mig is None else tuple(_profile(each) for each in gpu.mig.profiles if each.placements),
    )


def _clocks(board: Board) -> ClocksDescription | None:
    if board.max_sm_mhz is None or board.max_memory_mhz is None:
        return None
    return ClocksDescription(smMHz=board.max_sm_mhz, memoryMHz=board.max_memory_mhz)


def _profile(profile: MigProfile) -> ProfileDescription:
    return ProfileDescription(
        name=profile.name,
        id=profile.id,
        enum_index=profile.enum_index,
        slices=profile.slice_count,
        instances=profile.instance_count,
        memoryMiB=profile.memory_mib,
        multiprocessors=profile.multiprocessors,
        copy_engines=profile.copy_engines,
        decoders=profile.decoders,
        encoders=profile.encoders,
        jpeg_engines=profile.jpeg_engines,
        ofa_engines=profile.ofa_engines,
        p2p=profile.p2p_supported,
        placements=Placements(
            size=profile.placements[0].size, starts=tuple(placement.start for placement in profile.placements)
        ),
    )


def _mig(mig: MigState | None) -> MigDescription | None:
    if mig is None or not mig.enabled:
        return None
    return MigDescription(
        enabled=True,
        instances=tuple(
            MigInstanceDescription(
                profile=instance.profile_id,
                start=instance.placement.start,
                compute_instances=_computing(instance, mig.profile(instance.profile_id)),
            )
            for instance in mig.instances
        ),
    )


def _computing(instance: GpuInstance, profile: MigProfile | None) -> tuple[ComputeInstanceDescription, ...] | None:
    """None for the usual case: one compute instance that fills the GPU instance."""
    runs = [(each.start, each.slices) for each in instance.compute_instances]
    if profile is not None and runs == [(0, profile.slice_count)]:
        return None
    return tuple(ComputeInstanceDescription(start=start, slices=slices) for start, slices in sorted(runs))
