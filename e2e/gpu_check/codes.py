"""How NVML answers: codes of what is there, not supported and wrong, readings of the board, event sets.

Nothing here looks at a value that changes while nobody looks; a reading is compared by whether there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_uint
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu
from dra_driver.hardware.nvml import GpuEvents, NvmlCallError, binding
from dra_driver.hardware.nvml.codes import Return, code_name
from e2e.gpu_check.facts import Facts, code_of, value_of
from e2e.gpu_check.side import Side

_NOBODY = "GPU-00000000-0000-0000-0000-000000000000"
_NO_BUS = "ffff:ff:1f.0"
_FAR = 4095  # more than any index or id
_MOST_PROFILES = 32  # NVML_GPU_INSTANCE_PROFILE_COUNT was 18 with driver 580
_COMPUTE_PROFILES = 10  # NVML_COMPUTE_INSTANCE_PROFILE_COUNT is 9
_MEMORY_V2 = 0x02000028  # nvmlMemory_v2
_UNHEARD_OF = 1 << 40  # no event type
_WAIT_SECONDS = 0.05


def errors(side: Side) -> Facts:
    """Wrong arguments, what the product lacks, and MIG queries whatever the product."""
    facts = {
        "NVML version": value_of("nvmlSystemGetNVMLVersion"),
        "handle by index, too high": code_of("nvmlDeviceGetHandleByIndex", _FAR),
        "handle by UUID, nobody's": code_of("nvmlDeviceGetHandleByUUID", _NOBODY),
        "handle by UUID, not one": code_of("nvmlDeviceGetHandleByUUID", "nonsense"),
        "handle by bus id, nobody's": code_of("nvmlDeviceGetHandleByPciBusId", _NO_BUS),
        "handle by bus id, not one": code_of("nvmlDeviceGetHandleByPciBusId", "nonsense"),
        "UUID of no handle": code_of("nvmlDeviceGetUUID", None),
    }
    for gpu in side.one_of_each_product():
        handle = binding.call("nvmlDeviceGetHandleByIndex", gpu.index)
        facts |= {f"GPU {gpu.index}, {what}": answer for what, answer in _of_gpu(handle, gpu)}
    return facts


def _of_gpu(handle: Any, gpu: Gpu) -> Iterator[tuple[str, str]]:
    yield "handle by its bus id", code_of("nvmlDeviceGetHandleByPciBusId", gpu.pci_bus_id)
    yield "is a MIG device", value_of("nvmlDeviceIsMigDeviceHandle", handle, say=lambda answer: answer.value)
    yield "MIG mode", code_of("nvmlDeviceGetMigMode", handle)
    yield "most MIG devices", value_of("nvmlDeviceGetMaxMigDeviceCount", handle)
    yield "MIG device 0", code_of("nvmlDeviceGetMigDeviceHandleByIndex", handle, 0)
    yield "MIG device, too high", code_of("nvmlDeviceGetMigDeviceHandleByIndex", handle, _FAR)
    yield "GPU instance of no such id", code_of("nvmlDeviceGetGpuInstanceById", handle, _FAR)
    yield "GPU instance id of a whole GPU", code_of("nvmlDeviceGetGpuInstanceId", handle)
    yield "MIG attributes of a whole GPU", code_of("nvmlDeviceGetAttributes_v2", handle)
    yield "parent of a whole GPU", code_of("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
    for index in range(_MOST_PROFILES):
        for version in (1, 2):
            answer = code_of("nvmlDeviceGetGpuInstanceProfileInfo", handle, index, version)
            yield f"GPU instance profile {index}, version {version}", answer
    count = c_uint(0)
    yield (
        "placements of no such profile",
        code_of("nvmlDeviceGetGpuInstancePossiblePlacements", handle, _FAR, None, byref(count)),
    )
    yield "room for no such profile", code_of("nvmlDeviceGetGpuInstanceRemainingCapacity", handle, _FAR)
    for profile in gpu.mig.profiles if gpu.mig else ():
        room = value_of("nvmlDeviceGetGpuInstanceRemainingCapacity", handle, profile.id)
        yield f"room for {profile.name}", room
    for instance in gpu.mig.instances if gpu.mig else ():
        for what, answer in _of_instance(handle, instance.id):
            yield f"{instance.profile_name} at {instance.placement.start}, {what}", answer


def _of_instance(handle: Any, gpu_instance: int) -> Iterator[tuple[str, str]]:
    found = code_of("nvmlDeviceGetGpuInstanceById", handle, gpu_instance)
    yield "by its id", found
    if found != code_name(Return.SUCCESS):
        return
    parent = binding.call("nvmlDeviceGetGpuInstanceById", handle, gpu_instance)
    yield "compute instance of no such id", code_of("nvmlGpuInstanceGetComputeInstanceById", parent, _FAR)
    for index in range(_COMPUTE_PROFILES):
        answer = value_of("nvmlGpuInstanceGetComputeInstanceProfileInfo", parent, index, 0, say=_compute_profile)
        yield f"compute instance profile {index}", answer


def _compute_profile(info: Any) -> str:
    return f"id {info.id}, {info.sliceCount} slices, {info.multiprocessorCount} SMs, at most {info.instanceCount}"


def readings(side: Side) -> Facts:
    """What the board reports about itself: whether there is an answer, for the values are never the same twice."""
    facts: Facts = {}
    for gpu in side.one_of_each_product():
        handle = binding.call("nvmlDeviceGetHandleByIndex", gpu.index)
        asked = {
            "temperature": code_of("nvmlDeviceGetTemperature", handle, 0),
            "temperature, sensor 1": code_of("nvmlDeviceGetTemperature", handle, 1),
            "temperature, versioned": code_of("nvmlDeviceGetTemperatureV", handle, 0),
            "power": code_of("nvmlDeviceGetPowerUsage", handle),
            "power limit": code_of("nvmlDeviceGetPowerManagementLimit", handle),
            "enforced power limit": code_of("nvmlDeviceGetEnforcedPowerLimit", handle),
            "utilisation": code_of("nvmlDeviceGetUtilizationRates", handle),
            "memory": code_of("nvmlDeviceGetMemoryInfo", handle),
            "memory, version 2": code_of("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2),
            "ECC mode": code_of("nvmlDeviceGetEccMode", handle),
            "compute mode": code_of("nvmlDeviceGetComputeMode", handle),
            "persistence mode": code_of("nvmlDeviceGetPersistenceMode", handle),
            "virtualisation mode": code_of("nvmlDeviceGetVirtualizationMode", handle),
            "addressing mode": code_of("nvmlDeviceGetAddressingMode", handle),
            "serial number": code_of("nvmlDeviceGetSerial", handle),
            "processes that compute": code_of("nvmlDeviceGetComputeRunningProcesses_v3", handle),
            "processes that draw": code_of("nvmlDeviceGetGraphicsRunningProcesses_v3", handle),
        }
        facts |= {f"GPU {gpu.index}, {what}": answer for what, answer in asked.items()}
    return facts


def events(side: Side) -> Facts:
    """Registration as the plugin does it, a wait in which nothing comes, and types that do not exist."""
    source = GpuEvents()
    try:
        reporting = source.open()
        facts = {"GPUs that report events": str(reporting), "a wait in which nothing comes": _waited(source)}
    except HardwareError as error:
        facts = {"GPUs that report events": str(error)}
    finally:
        source.close()
    for gpu in side.one_of_each_product():
        handle = binding.call("nvmlDeviceGetHandleByIndex", gpu.index)
        name = f"GPU {gpu.index}, "
        facts[f"{name}supported types"] = value_of("nvmlDeviceGetSupportedEventTypes", handle, say=_types)
        own = binding.call("nvmlEventSetCreate")
        facts[f"{name}registered for no such type"] = code_of("nvmlDeviceRegisterEvents", handle, _UNHEARD_OF, own)
        binding.call("nvmlEventSetFree", own)
    return facts


def _waited(source: GpuEvents) -> str:
    try:
        event = source.wait(_WAIT_SECONDS)
    except NvmlCallError as error:
        return str(error)
    return "nothing" if event is None else "an event came"


def _types(mask: int) -> str:
    """Those that the plugin registers for; others are of no use to it."""
    known = {0x8: "XID", 0x100: "MIG changes"}
    return ", ".join(name for bit, name in known.items() if mask & bit) or "neither XID nor MIG changes"


def after_shutdown(_side: Side) -> Facts:
    """NVML has been shut down: nothing works until it is initialised again."""
    return {
        "count": code_of("nvmlDeviceGetCount"),
        "driver version": code_of("nvmlSystemGetDriverVersion"),
        "shut down again": code_of("nvmlShutdown"),
        "text of a code": value_of("nvmlErrorString", int(Return.UNINITIALIZED)),
    }
