"""Simulated functions that a monitoring tool asks for, on whole GPUs: an idle board's temperature, power, use.

The values are those of ``idle``. Nothing runs on simulated hardware, so there is no use, and no processes but those
that ``faults.add_client`` names.
"""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import idle
from dra_driver.simulation.hardware.arguments import Refused, number, require_version, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind

_TEMPERATURE_V1 = 0x0100000C  # nvmlTemperature_v1
_SENSOR_GPU = 0  # NVML_TEMPERATURE_GPU
_ENABLED = 1
_BARE_METAL = 0  # NVML_GPU_VIRTUALIZATION_MODE_NONE

_NO_INSTANCE = 0xFFFFFFFF

_GRAPHICS_CLOCK, _SM_CLOCK, _MEMORY_CLOCK = 0, 1, 2  # nvmlClockType_t; the video clock is not simulated
_ECC_ERROR_TYPES = 2  # NVML_MEMORY_ERROR_TYPE_COUNT
_ECC_COUNTERS = 2  # NVML_ECC_COUNTER_TYPE_COUNT


def _temperature(call: DeviceCall, sensor: Any, temperature: Any) -> None:
    if number(sensor) != _SENSOR_GPU:
        raise Refused(Return.INVALID_ARGUMENT)
    target(temperature).value = idle.celsius(call.index)


def _temperature_v(call: DeviceCall, reading: Any) -> None:
    structure = target(reading)
    require_version(structure, _TEMPERATURE_V1)
    if structure.sensorType != _SENSOR_GPU:
        raise Refused(Return.INVALID_ARGUMENT)
    structure.temperature = idle.celsius(call.index)


def _power_limit_milliwatts(call: DeviceCall) -> int:
    limit = call.product.power_limit_milliwatts
    if limit is None:
        raise Refused(Return.NOT_SUPPORTED)
    return limit


def _power_usage(call: DeviceCall, milliwatts: Any) -> None:
    target(milliwatts).value = idle.power_milliwatts(_power_limit_milliwatts(call), call.index)


def _power_limit(call: DeviceCall, milliwatts: Any) -> None:
    target(milliwatts).value = _power_limit_milliwatts(call)


def _utilization(call: DeviceCall, rates: Any) -> None:
    if call.gpu.mig_enabled:
        raise Refused(Return.NOT_SUPPORTED)  # NVML has no utilisation of a GPU in MIG mode
    structure = target(rates)
    structure.gpu = structure.memory = 0


def _performance_state(_call: DeviceCall, state: Any) -> None:
    target(state).value = idle.PERFORMANCE_STATE


def _max_clock(call: DeviceCall, kind: Any, megahertz: Any) -> None:
    clocks, wanted = call.product.max_clocks, number(kind)
    if clocks is None or wanted not in (_GRAPHICS_CLOCK, _SM_CLOCK, _MEMORY_CLOCK):
        raise Refused(Return.NOT_SUPPORTED)
    target(megahertz).value = clocks.memory_mhz if wanted == _MEMORY_CLOCK else clocks.sm_mhz


def _clock(call: DeviceCall, kind: Any, megahertz: Any) -> None:
    _max_clock(call, kind, megahertz)
    if number(kind) != _MEMORY_CLOCK:
        target(megahertz).value = idle.SM_CLOCK_MHZ


def _persistence_mode(_call: DeviceCall, mode: Any) -> None:
    target(mode).value = _ENABLED


def _ecc_mode(_call: DeviceCall, current: Any, pending: Any) -> None:
    target(current).value = target(pending).value = _ENABLED


def _ecc_errors(_call: DeviceCall, kind: Any, counter: Any, count: Any) -> None:
    if not (0 <= number(kind) < _ECC_ERROR_TYPES and 0 <= number(counter) < _ECC_COUNTERS):
        raise Refused(Return.INVALID_ARGUMENT)
    target(count).value = 0


def _compute_processes(call: DeviceCall, count: Any, infos: Any) -> None:
    uuid = call.compute_instance.uuid if call.target.kind is Kind.MIG_DEVICE else call.gpu.uuid
    pids = [client.pid for client in call.gpu.clients if client.uuid == uuid]
    room = target(count)
    available, room.value = room.value, len(pids)
    if available < len(pids):
        raise Refused(Return.INSUFFICIENT_SIZE)
    for position, pid in enumerate(pids):
        infos[position].pid, infos[position].usedGpuMemory = pid, 0
        infos[position].gpuInstanceId = infos[position].computeInstanceId = _NO_INSTANCE


def _graphics_processes(_call: DeviceCall, count: Any, _infos: Any) -> None:
    target(count).value = 0


def _virtualization_mode(_call: DeviceCall, mode: Any) -> None:
    target(mode).value = _BARE_METAL


FUNCTIONS: FunctionTable = {
    "nvmlDeviceGetTemperature": Function(_temperature, (Kind.GPU,)),
    "nvmlDeviceGetTemperatureV": Function(_temperature_v, (Kind.GPU,)),
    "nvmlDeviceGetPowerUsage": Function(_power_usage, (Kind.GPU,)),
    "nvmlDeviceGetPowerManagementLimit": Function(_power_limit, (Kind.GPU,)),
    "nvmlDeviceGetEnforcedPowerLimit": Function(_power_limit, (Kind.GPU,)),
    "nvmlDeviceGetUtilizationRates": Function(_utilization, (Kind.GPU,)),
    "nvmlDeviceGetPerformanceState": Function(_performance_state, (Kind.GPU,)),
    "nvmlDeviceGetClockInfo": Function(_clock, (Kind.GPU,)),
    "nvmlDeviceGetMaxClockInfo": Function(_max_clock, (Kind.GPU,)),
    "nvmlDeviceGetPersistenceMode": Function(_persistence_mode, (Kind.GPU,)),
    "nvmlDeviceGetEccMode": Function(_ecc_mode, (Kind.GPU,)),
    "nvmlDeviceGetTotalEccErrors": Function(_ecc_errors, (Kind.GPU,)),
    "nvmlDeviceGetComputeRunningProcesses_v3": Function(_compute_processes, (Kind.GPU, Kind.MIG_DEVICE)),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": Function(_graphics_processes, (Kind.GPU,)),
    "nvmlDeviceGetVirtualizationMode": Function(_virtualization_mode, (Kind.GPU,)),
}
