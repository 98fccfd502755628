"""Simulated functions that a monitoring tool asks for, on whole GPUs: an idle board's temperature, power, use.

The values are made up but steady: they differ between GPUs and stay within the board's limits. Nothing runs on
simulated hardware, so there is no use, and no processes but those that ``faults.add_client`` names.
"""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, number, require_version, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind

_TEMPERATURE_V1 = 0x0100000C  # nvmlTemperature_v1
_SENSOR_GPU = 0  # NVML_TEMPERATURE_GPU
_ENABLED = 1
_BARE_METAL = 0  # NVML_GPU_VIRTUALIZATION_MODE_NONE

_NO_INSTANCE = 0xFFFFFFFF

_IDLE_CELSIUS = 29
_IDLE_POWER_PERCENT = 15


def _celsius(call: DeviceCall) -> int:
    return _IDLE_CELSIUS + call.index % 4


def _temperature(call: DeviceCall, sensor: Any, temperature: Any) -> None:
    if number(sensor) != _SENSOR_GPU:
        raise Refused(Return.INVALID_ARGUMENT)
    target(temperature).value = _celsius(call)


def _temperature_v(call: DeviceCall, reading: Any) -> None:
    structure = target(reading)
    require_version(structure, _TEMPERATURE_V1)
    if structure.sensorType != _SENSOR_GPU:
        raise Refused(Return.INVALID_ARGUMENT)
    structure.temperature = _celsius(call)


def _power_limit_milliwatts(call: DeviceCall) -> int:
    limit = call.product.power_limit_milliwatts
    if limit is None:
        raise Refused(Return.NOT_SUPPORTED)
    return limit


def _power_usage(call: DeviceCall, milliwatts: Any) -> None:
    target(milliwatts).value = _power_limit_milliwatts(call) * (_IDLE_POWER_PERCENT + call.index % 4) // 100


def _power_limit(call: DeviceCall, milliwatts: Any) -> None:
    target(milliwatts).value = _power_limit_milliwatts(call)


def _utilization(call: DeviceCall, rates: Any) -> None:
    if call.gpu.mig_enabled:
        raise Refused(Return.NOT_SUPPORTED)  # NVML has no utilisation of a GPU in MIG mode
    structure = target(rates)
    structure.gpu = structure.memory = 0


def _persistence_mode(_call: DeviceCall, mode: Any) -> None:
    target(mode).value = _ENABLED


def _ecc_mode(_call: DeviceCall, current: Any, pending: Any) -> None:
    target(current).value = target(pending).value = _ENABLED


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
    "nvmlDeviceGetPersistenceMode": Function(_persistence_mode, (Kind.GPU,)),
    "nvmlDeviceGetEccMode": Function(_ecc_mode, (Kind.GPU,)),
    "nvmlDeviceGetComputeRunningProcesses_v3": Function(_compute_processes, (Kind.GPU, Kind.MIG_DEVICE)),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": Function(_graphics_processes, (Kind.GPU,)),
    "nvmlDeviceGetVirtualizationMode": Function(_virtualization_mode, (Kind.GPU,)),
}
