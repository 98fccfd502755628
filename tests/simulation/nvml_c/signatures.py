"""What NVML's functions take, as values to call them with: for each argument some that are right and some that are not."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pynvml

from tests.simulation.nvml_c.twins import Arguments

Values = tuple[Callable[[], Arguments], ...]
"""Ways to give one argument; the first is right."""


def _result(kind: Any, count: int = 1) -> Values:
    """A pointer to what the function writes, and NULL."""

    def right() -> Arguments:
        value = kind() if count == 1 else (kind * count)()
        return Arguments((ctypes.byref(value) if count == 1 else value,), (value,))

    return right, lambda: Arguments((None,))


def _number(*values: int) -> Values:
    return tuple(lambda value=value: Arguments((value,)) for value in values)


def _text(*values: bytes | None) -> Values:
    return tuple(lambda value=value: Arguments((value,)) for value in values)


def _buffer(room: int) -> Arguments:
    buffer = ctypes.create_string_buffer(room)
    return Arguments((buffer, ctypes.c_uint(room)), (buffer,))


_TEXT: Values = (
    lambda: _buffer(96),
    lambda: _buffer(1),
    lambda: _buffer(12),
    lambda: Arguments((None, ctypes.c_uint(96))),
)


def _versioned(kind: Any, version: int) -> Values:
    def of(number: int) -> Arguments:
        value = kind()
        value.version = number
        return Arguments((ctypes.byref(value),), (value,))

    return lambda: of(version), lambda: of(version + 1), lambda: of(0), lambda: Arguments((None,))


def _counted(kind: Any, *rooms: int | None) -> Values:
    """An array and how much room there is in it; None: only how much there must be."""

    def of(room: int | None) -> Arguments:
        count = ctypes.c_uint(room or 0)
        array = None if room is None else (kind * max(room, 1))()
        written = (count,) if array is None else (array, count)
        return Arguments((array, ctypes.byref(count)), written)

    return tuple(lambda room=room: of(room) for room in rooms)


def _counted_before(kind: Any, *rooms: int) -> Values:
    """As nvmlDeviceGetComputeRunningProcesses has it: the count first."""

    def of(room: int) -> Arguments:
        count, array = ctypes.c_uint(room), (kind * max(room, 1))()
        return Arguments((ctypes.byref(count), array), (count, array))

    return tuple(lambda room=room: of(room) for room in rooms)


_UINT = _result(ctypes.c_uint)
_INT = _result(ctypes.c_int)
_HANDLE = _result(ctypes.c_void_p)
_INDEX = _number(0, 1, 2, 7, 8, 9, 17, 18, 255, 0xFFFFFFFF)
_PROFILE_ID = _number(0, 5, 9, 14, 15, 19, 20, 21, 1, 2, 46, 47, 64, 67, 99, 0xFFFFFFFF)
_COMPUTE_PROFILE = _number(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255)
_INSTANCE_ID = _number(0, 1, 2, 3, 7, 8, 15, 0xFFFFFFFF)
_PLACEMENT = pynvml.c_nvmlGpuInstancePlacement_t

# Of functions that change nothing, after the handle where they take one.
READING: dict[str, tuple[Values, ...]] = {
    "nvmlSystemGetDriverVersion": (_TEXT,),
    "nvmlSystemGetNVMLVersion": (_TEXT,),
    "nvmlSystemGetCudaDriverVersion": (_INT,),
    "nvmlSystemGetCudaDriverVersion_v2": (_INT,),
    "nvmlSystemGetProcessName": (_number(1, 0x7FFFFFFF), _TEXT),
    "nvmlDeviceGetCount_v2": (_UINT,),
    "nvmlDeviceGetHandleByIndex_v2": (_INDEX, _HANDLE),
    "nvmlDeviceGetHandleByUUID": (_text(b"GPU-nothing", b"", None), _HANDLE),
    "nvmlDeviceGetHandleByPciBusId_v2": (
        _text(
            b"0000:1a:00.0", b"00000000:1A:00.0", b"0000:17:00.0", b"0000:01:00.0", b"0009:01:00.0", b"x:1", b"1a", None
        ),
        _HANDLE,
    ),
    "nvmlDeviceGetName": (_TEXT,),
    "nvmlDeviceGetUUID": (_TEXT,),
    "nvmlDeviceGetSerial": (_TEXT,),
    "nvmlDeviceGetMinorNumber": (_UINT,),
    "nvmlDeviceGetIndex": (_UINT,),
    "nvmlDeviceGetPciInfo_v3": (_result(pynvml.nvmlPciInfo_t),),
    "nvmlDeviceGetMemoryInfo": (_result(pynvml.c_nvmlMemory_t),),
    "nvmlDeviceGetMemoryInfo_v2": (_versioned(pynvml.c_nvmlMemory_v2_t, pynvml.nvmlMemory_v2),),
    "nvmlDeviceGetBAR1MemoryInfo": (_result(pynvml.c_nvmlBAR1Memory_t),),
    "nvmlDeviceGetBrand": (_UINT,),
    "nvmlDeviceGetArchitecture": (_UINT,),
    "nvmlDeviceGetCudaComputeCapability": (_INT, _INT),
    "nvmlDeviceGetAddressingMode": (
        _versioned(pynvml.c_nvmlDeviceAddressingMode_t, pynvml.nvmlDeviceAddressingMode_v1),
    ),
    "nvmlDeviceGetComputeMode": (_UINT,),
    "nvmlDeviceIsMigDeviceHandle": (_UINT,),
    "nvmlDeviceGetTemperature": (_number(0, 1), _UINT),
    "nvmlDeviceGetTemperatureV": (_versioned(pynvml.c_nvmlTemperature_v1_t, pynvml.nvmlTemperature_v1),),
    "nvmlDeviceGetPowerUsage": (_UINT,),
    "nvmlDeviceGetPowerManagementLimit": (_UINT,),
    "nvmlDeviceGetEnforcedPowerLimit": (_UINT,),
    "nvmlDeviceGetUtilizationRates": (_result(pynvml.c_nvmlUtilization_t),),
    "nvmlDeviceGetPerformanceState": (_UINT,),
    "nvmlDeviceGetClockInfo": (_number(0, 1, 2, 3), _UINT),
    "nvmlDeviceGetMaxClockInfo": (_number(0, 1, 2, 3), _UINT),
    "nvmlDeviceGetPersistenceMode": (_UINT,),
    "nvmlDeviceGetEccMode": (_UINT, _UINT),
    "nvmlDeviceGetTotalEccErrors": (_number(0, 1, 2), _number(0, 1, 2), _result(ctypes.c_ulonglong)),
    "nvmlDeviceGetComputeRunningProcesses_v3": (_counted_before(pynvml.c_nvmlProcessInfo_v3_t, 4, 1, 0),),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": (_counted_before(pynvml.c_nvmlProcessInfo_v3_t, 4, 0),),
    "nvmlDeviceGetVirtualizationMode": (_UINT,),
    "nvmlDeviceGetMigMode": (_UINT, _UINT),
    "nvmlDeviceGetGpuInstanceProfileInfo": (_INDEX, _result(pynvml.c_nvmlGpuInstanceProfileInfo_t)),
    "nvmlDeviceGetGpuInstanceProfileInfoV": (
        _INDEX,
        _versioned(pynvml.c_nvmlGpuInstanceProfileInfo_v2_t, pynvml.nvmlGpuInstanceProfileInfo_v2),
    ),
    "nvmlDeviceGetGpuInstanceProfileInfoByIdV": (
        _PROFILE_ID,
        _versioned(pynvml.c_nvmlGpuInstanceProfileInfo_v2_t, pynvml.nvmlGpuInstanceProfileInfo_v2),
    ),
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2": (_PROFILE_ID, _counted(_PLACEMENT, 16, None, 1, 0)),
    "nvmlDeviceGetGpuInstances": (_PROFILE_ID, _counted(pynvml.c_nvmlGpuInstance_t, 16)),
    "nvmlDeviceGetGpuInstanceById": (_INSTANCE_ID, _HANDLE),
    "nvmlGpuInstanceGetInfo": (_result(pynvml.c_nvmlGpuInstanceInfo_t),),
    "nvmlDeviceGetGpuInstanceRemainingCapacity": (_PROFILE_ID, _UINT),
    "nvmlGpuInstanceGetComputeInstanceProfileInfo": (
        _COMPUTE_PROFILE,
        _number(0, 1),
        _result(pynvml.c_nvmlComputeInstanceProfileInfo_t),
    ),
    "nvmlGpuInstanceGetComputeInstanceProfileInfoV": (
        _COMPUTE_PROFILE,
        _number(0, 1),
        _versioned(pynvml.c_nvmlComputeInstanceProfileInfo_v2_t, pynvml.nvmlComputeInstanceProfileInfo_v2),
    ),
    "nvmlGpuInstanceGetComputeInstancePossiblePlacements": (_COMPUTE_PROFILE, _counted(_PLACEMENT, 16, None, 1, 0)),
    "nvmlGpuInstanceGetComputeInstanceRemainingCapacity": (_COMPUTE_PROFILE, _UINT),
    "nvmlGpuInstanceGetComputeInstances": (_COMPUTE_PROFILE, _counted(pynvml.c_nvmlComputeInstance_t, 16)),
    "nvmlGpuInstanceGetComputeInstanceById": (_INSTANCE_ID, _HANDLE),
    "nvmlComputeInstanceGetInfo_v2": (_result(pynvml.c_nvmlComputeInstanceInfo_t),),
    "nvmlDeviceGetMaxMigDeviceCount": (_UINT,),
    "nvmlDeviceGetMigDeviceHandleByIndex": (_INDEX, _HANDLE),
    "nvmlDeviceGetGpuInstanceId": (_UINT,),
    "nvmlDeviceGetComputeInstanceId": (_UINT,),
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": (_HANDLE,),
    "nvmlDeviceGetAttributes_v2": (_result(pynvml.c_nvmlDeviceAttributes),),
    "nvmlDeviceGetSupportedEventTypes": (_result(ctypes.c_ulonglong),),
}

CHANGING = frozenset(
    {
        "nvmlDeviceSetComputeMode",
        "nvmlDeviceSetMigMode",
        "nvmlDeviceCreateGpuInstance",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceDestroy",
        "nvmlGpuInstanceCreateComputeInstance",
        "nvmlGpuInstanceCreateComputeInstanceWithPlacement",
        "nvmlComputeInstanceDestroy",
        "nvmlEventSetCreate",
        "nvmlDeviceRegisterEvents",
        "nvmlEventSetWait_v2",
        "nvmlEventSetFree",
        "nvmlDeviceSetMemoryLimits_v1",
        "nvmlDeviceGetMemoryLimits_v1",
    }
)
"""Functions that have tests of their own."""


def ways(values: tuple[Values, ...]) -> Iterator[Callable[[], Arguments]]:
    """All right; then each argument by itself in all its ways, beside right ones."""
    right = tuple(each[0] for each in values)
    yield lambda: _joined(right)
    for position, each in enumerate(values):
        for way in each[1:]:
            chosen = (*right[:position], way, *right[position + 1 :])
            yield partial(_joined, chosen)


def _joined(made: tuple[Callable[[], Arguments], ...]) -> Arguments:
    joined = Arguments()
    for each in made:
        joined = joined + each()
    return joined


def serial(handle: Any) -> Callable[[], Arguments]:
    """For nvmlDeviceGetSerial, as an example of a function that only reads."""

    def make() -> Arguments:
        buffer = ctypes.create_string_buffer(64)
        return Arguments((handle, buffer, ctypes.c_uint(64)), (buffer,))

    return make


def mig_mode(gpu: Any, wanted: int) -> Callable[[], Arguments]:
    """For nvmlDeviceSetMigMode."""

    def make() -> Arguments:
        status = ctypes.c_uint(77)
        return Arguments((gpu, wanted, ctypes.byref(status)), (status,))

    return make
