"""The facts of a GPU as NVML tells them. What it does not have (any more, or yet) is None."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dra_driver.hardware.model import Gpu, Machine
from dra_driver.hardware.nvml import NvmlCallError
from dra_driver.hardware.nvml.binding import call, query
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.smi.facts import Bar1, GpuFacts, Memory, MigDevice, Process, Versions

_MEMORY_V2 = 0x02000028  # nvmlMemory_v2
_SENSOR_GPU = 0  # NVML_TEMPERATURE_GPU
_SM_CLOCK, _MEMORY_CLOCK = 1, 2  # nvmlClockType_t
_UNCORRECTED, _VOLATILE = 1, 0  # nvmlMemoryErrorType_t, nvmlEccCounterType_t


def versions(machine: Machine) -> Versions:
    cuda = machine.cuda_driver_version
    return Versions(machine.driver_version, f"{cuda // 1000}.{cuda % 1000 // 10}")


def gpu_facts(gpu: Gpu) -> GpuFacts:
    """NvmlCallError when the GPU does not answer."""
    device = f"GPU {gpu.index}"
    handle = call("nvmlDeviceGetHandleByUUID", gpu.uuid, device=device)

    def ask(function: str, *arguments: Any) -> Any:
        return query(function, handle, *arguments, device=device)

    pci = call("nvmlDeviceGetPciInfo", handle, device=device)
    memory, bar1 = ask("nvmlDeviceGetMemoryInfo", _MEMORY_V2), ask("nvmlDeviceGetBAR1MemoryInfo")
    use = ask("nvmlDeviceGetUtilizationRates")
    ecc = ask("nvmlDeviceGetEccMode")
    devices = tuple(_mig_devices(handle, device)) if gpu.mig is not None and gpu.mig.enabled else ()
    return GpuFacts(
        index=gpu.index,
        minor=gpu.minor,
        uuid=gpu.uuid,
        serial=ask("nvmlDeviceGetSerial"),
        name=gpu.product_name,
        brand=gpu.brand,
        architecture=gpu.architecture,
        compute_capability=gpu.cuda_compute_capability,
        addressing_mode=gpu.addressing_mode,
        pci_bus_id=f"0000{gpu.pci_bus_id}".upper(),
        pci_device_id=int(pci.pciDeviceId),
        pci_subsystem_id=int(pci.pciSubSystemId),
        memory=None if memory is None else _memory(memory),
        bar1=None if bar1 is None else _bar1(bar1),
        celsius=ask("nvmlDeviceGetTemperature", _SENSOR_GPU),
        power_milliwatts=ask("nvmlDeviceGetPowerUsage"),
        power_limit_milliwatts=ask("nvmlDeviceGetPowerManagementLimit"),
        gpu_percent=None if use is None else int(use.gpu),
        memory_percent=None if use is None else int(use.memory),
        performance_state=ask("nvmlDeviceGetPerformanceState"),
        sm_mhz=ask("nvmlDeviceGetClockInfo", _SM_CLOCK),
        memory_mhz=ask("nvmlDeviceGetClockInfo", _MEMORY_CLOCK),
        max_sm_mhz=ask("nvmlDeviceGetMaxClockInfo", _SM_CLOCK),
        max_memory_mhz=ask("nvmlDeviceGetMaxClockInfo", _MEMORY_CLOCK),
        persistence=_mode(ask("nvmlDeviceGetPersistenceMode")),
        ecc=None if ecc is None else bool(ecc[0]),
        ecc_errors=ask("nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _VOLATILE),
        compute_mode=int(call("nvmlDeviceGetComputeMode", handle, device=device)),
        mig=gpu.mig.enabled if gpu.mig else None,
        mig_pending=gpu.mig.pending if gpu.mig else None,
        mig_devices=tuple(each for each, _ in devices),
        processes=(*_processes(handle, device), *(process for _, running in devices for process in running)),
    )


def _mig_devices(gpu: Any, device: str) -> Iterator[tuple[MigDevice, tuple[Process, ...]]]:
    """With the processes on each."""
    for index in range(int(call("nvmlDeviceGetMaxMigDeviceCount", gpu, device=device))):
        try:
            handle = call("nvmlDeviceGetMigDeviceHandleByIndex", gpu, index, device=device)
        except NvmlCallError as error:
            if error.code == Return.NOT_FOUND:  # indices have no gaps
                return
            raise
        where = f"MIG device {index} of {device}"
        attributes = call("nvmlDeviceGetAttributes", handle, device=where)
        ids = (
            int(call("nvmlDeviceGetGpuInstanceId", handle, device=where)),
            int(call("nvmlDeviceGetComputeInstanceId", handle, device=where)),
        )
        found = MigDevice(
            index=index,
            gpu_instance=ids[0],
            compute_instance=ids[1],
            uuid=str(call("nvmlDeviceGetUUID", handle, device=where)),
            name=str(call("nvmlDeviceGetName", handle, device=where)).rpartition(" MIG ")[2],
            multiprocessors=int(attributes.multiprocessorCount),
            copy_engines=int(attributes.sharedCopyEngineCount),
            encoders=int(attributes.sharedEncoderCount),
            decoders=int(attributes.sharedDecoderCount),
            ofa_engines=int(attributes.sharedOfaCount),
            jpeg_engines=int(attributes.sharedJpegCount),
            memory=_memory(call("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2, device=where)),
            bar1=_bar1(call("nvmlDeviceGetBAR1MemoryInfo", handle, device=where)),
        )
        yield found, tuple(_processes(handle, where, *ids))


def _processes(
    handle: Any, device: str, gpu_instance: int | None = None, compute_instance: int | None = None
) -> Iterator[Process]:
    for each in query("nvmlDeviceGetComputeRunningProcesses", handle, device=device) or ():
        yield Process(
            pid=int(each.pid),
            name=_process_name(int(each.pid)),
            used_bytes=None if each.usedGpuMemory is None else int(each.usedGpuMemory),
            gpu_instance=gpu_instance,
            compute_instance=compute_instance,
        )


def _process_name(pid: int) -> str | None:
    try:
        return str(call("nvmlSystemGetProcessName", pid))
    except NvmlCallError as error:
        if error.code in (Return.NOT_FOUND, Return.FUNCTION_NOT_FOUND):
            return None
        raise


def _mode(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _memory(info: Any) -> Memory:
    return Memory(total=int(info.total), reserved=int(info.reserved), used=int(info.used), free=int(info.free))


def _bar1(info: Any) -> Bar1:
    return Bar1(total=int(info.bar1Total), used=int(info.bar1Used))
