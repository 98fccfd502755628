"""The facts of a GPU straight from the simulated state: the same as NVML tells, where there is no NVML. Pure.

Processes are left out: a container sees none of other PID namespaces, and none of its own has a simulated GPU open.
"""

from __future__ import annotations

from dra_driver.simulation.hardware import idle
from dra_driver.simulation.hardware.placing import device_name, multiprocessors
from dra_driver.simulation.hardware.smi.facts import Bar1, GpuFacts, Memory, MigDevice, Versions
from dra_driver.simulation.hardware.state import ComputeInstanceState, GpuInstanceState, SimulatedState


def versions(state: SimulatedState) -> Versions:
    cuda = state.cuda_driver_version
    return Versions(
        state.module_version or state.machine.hardware.driver_version, f"{cuda // 1000}.{cuda % 1000 // 10}"
    )


def gpu_facts(state: SimulatedState, index: int) -> GpuFacts:
    gpu, described, product = state.gpus[index], state.description(index), state.product(index)
    limit, clocks = product.power_limit_milliwatts, product.max_clocks
    has_mig = product.mig_profiles is not None
    idle_percent = None if gpu.mig_enabled else 0
    return GpuFacts(
        index=index,
        minor=described.minor,
        uuid=gpu.uuid,
        serial=gpu.serial,
        name=product.name,
        brand=product.brand,
        architecture=product.architecture,
        compute_capability=product.cuda_compute_capability,
        addressing_mode=product.addressing_mode,
        pci_bus_id=f"0000{described.pci_bus_id}".upper(),
        pci_device_id=int(product.pci_device_id or "0", 16),
        pci_subsystem_id=int(product.pci_subsystem_id or "0", 16),
        memory=None if product.memory_bytes is None else _memory(product.memory_bytes),
        bar1=Bar1(idle.bar1_bytes(product), 0),
        celsius=idle.celsius(index),
        power_milliwatts=None if limit is None else idle.power_milliwatts(limit, index),
        power_limit_milliwatts=limit,
        gpu_percent=idle_percent,
        memory_percent=idle_percent,
        performance_state=idle.PERFORMANCE_STATE,
        sm_mhz=None if clocks is None else idle.SM_CLOCK_MHZ,
        memory_mhz=None if clocks is None else clocks.memory_mhz,
        max_sm_mhz=None if clocks is None else clocks.sm_mhz,
        max_memory_mhz=None if clocks is None else clocks.memory_mhz,
        persistence=True,
        ecc=True,
        ecc_errors=0,
        compute_mode=gpu.compute_mode,
        mig=gpu.mig_enabled if has_mig else None,
        mig_pending=gpu.mig_pending if has_mig else None,
        mig_devices=tuple(
            device
            for number, (instance, compute) in enumerate(gpu.mig_devices())
            if (device := _mig_device(state, index, number, instance, compute)) is not None
        ),
    )


def _mig_device(
    state: SimulatedState, index: int, number: int, instance: GpuInstanceState, compute: ComputeInstanceState
) -> MigDevice | None:
    product = state.product(index)
    profile = product.profile(instance.profile)
    if profile is None:
        return None
    return MigDevice(
        index=number,
        gpu_instance=instance.id,
        compute_instance=compute.id,
        uuid=compute.uuid,
        name=device_name(profile, compute.slices),
        multiprocessors=multiprocessors(product, profile, compute.slices),
        copy_engines=profile.copy_engines,
        encoders=profile.encoders,
        decoders=profile.decoders,
        ofa_engines=profile.ofa_engines,
        jpeg_engines=profile.jpeg_engines,
        memory=_memory(profile.memory_mib << 20),
        bar1=Bar1(idle.mig_bar1_bytes(product, profile), 0),
    )


def _memory(total: int) -> Memory:
    reserved = idle.reserved_bytes(total)
    return Memory(total=total, reserved=reserved, used=0, free=total - reserved)
