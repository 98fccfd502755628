"""Simulated functions of one GPU: identity, memory, compute mode. MIG device handles get what real ones get."""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.names import ADDRESSING_MODES, ARCHITECTURES, BRANDS
from dra_driver.simulation.hardware.arguments import Refused, number, require_version, target, write_text
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind
from dra_driver.simulation.hardware.idle import bar1_bytes, mig_bar1_bytes, reserved_bytes
from dra_driver.simulation.hardware.memory_limits import own_view
from dra_driver.simulation.hardware.placing import device_name

_MEMORY_V2 = 0x02000028  # nvmlMemory_v2
_ADDRESSING_MODE_V1 = 0x01000008  # nvmlDeviceAddressingMode_v1

_EXCLUSIVE_THREAD = 1  # NVML_COMPUTEMODE_EXCLUSIVE_THREAD: support was removed
_COMPUTE_MODES = 4  # NVML_COMPUTEMODE_COUNT

_WITH_MIG = (Kind.GPU, Kind.MIG_DEVICE)


def _code_of(names: dict[int, str], name: str | None) -> int | None:
    return next((code for code, each in names.items() if each == name), None)


def _name(call: DeviceCall, buffer: Any, length: Any) -> None:
    name = call.product.name
    if call.target.kind is Kind.MIG_DEVICE:
        name = f"{name} MIG {device_name(call.instance_profile, call.compute_instance.slices)}"
    write_text(buffer, length, name)


def _uuid(call: DeviceCall, buffer: Any, length: Any) -> None:
    write_text(buffer, length, call.compute_instance.uuid if call.target.kind is Kind.MIG_DEVICE else call.gpu.uuid)


def _serial(call: DeviceCall, buffer: Any, length: Any) -> None:
    write_text(buffer, length, call.gpu.serial)


def _minor_number(call: DeviceCall, minor: Any) -> None:
    target(minor).value = call.description.minor


def _index(call: DeviceCall, index: Any) -> None:
    target(index).value = call.index


def _pci_info(call: DeviceCall, info: Any) -> None:
    structure = target(info)
    domain, bus, device = (int(part, 16) for part in call.description.pci_bus_id.split(".")[0].split(":"))
    structure.domain, structure.bus, structure.device = domain, bus, device
    structure.busIdLegacy = f"{domain:04X}:{bus:02X}:{device:02X}.0"
    structure.busId = f"{domain:08X}:{bus:02X}:{device:02X}.0"
    structure.pciDeviceId = int(call.product.pci_device_id or "0", 16)
    structure.pciSubSystemId = int(call.product.pci_subsystem_id or "0", 16)


def _memory_bytes(call: DeviceCall) -> int:
    if call.target.kind is Kind.MIG_DEVICE:
        return call.instance_profile.memory_mib << 20
    if call.product.memory_bytes is None:
        raise Refused(Return.NOT_SUPPORTED)
    return call.product.memory_bytes


def _memory_info(call: DeviceCall, info: Any) -> None:
    structure = target(info)
    total = _memory_bytes(call)
    structure.total, structure.used = total, reserved_bytes(total)
    structure.free = total - structure.used


def _memory_info_v2(call: DeviceCall, info: Any) -> None:
    structure = target(info)
    require_version(structure, _MEMORY_V2)
    total = _memory_bytes(call)
    structure.total, structure.reserved, structure.used = total, reserved_bytes(total), 0
    if (limited := own_view(call)) is not None:  # asked from within a cgroup with a limit, it is about that limit
        structure.total, structure.reserved, structure.used = limited[0], 0, limited[1]
    structure.free = structure.total - structure.reserved - structure.used


def _bar1_memory_info(call: DeviceCall, info: Any) -> None:
    structure = target(info)
    mig = call.target.kind is Kind.MIG_DEVICE
    structure.bar1Total = mig_bar1_bytes(call.product, call.instance_profile) if mig else bar1_bytes(call.product)
    structure.bar1Used, structure.bar1Free = 0, structure.bar1Total


def _brand(call: DeviceCall, brand: Any) -> None:
    target(brand).value = _code_of(BRANDS, call.product.brand) or 0  # NVML_BRAND_UNKNOWN


def _architecture(call: DeviceCall, architecture: Any) -> None:
    code = _code_of(ARCHITECTURES, call.product.architecture)
    target(architecture).value = 0xFFFFFFFF if code is None else code  # NVML_DEVICE_ARCH_UNKNOWN


def _compute_capability(call: DeviceCall, major: Any, minor: Any) -> None:
    first, second = call.product.cuda_compute_capability.split(".")
    target(major).value, target(minor).value = int(first), int(second)


def _addressing_mode(call: DeviceCall, mode: Any) -> None:
    structure = target(mode)
    require_version(structure, _ADDRESSING_MODE_V1)
    code = _code_of(ADDRESSING_MODES, call.product.addressing_mode)
    if code is None:
        raise Refused(Return.NOT_SUPPORTED)
    structure.value = code


def _compute_mode(call: DeviceCall, mode: Any) -> None:
    target(mode).value = call.gpu.compute_mode


def _set_compute_mode(call: DeviceCall, mode: Any) -> None:
    wanted = number(mode)
    if not 0 <= wanted < _COMPUTE_MODES:
        raise Refused(Return.INVALID_ARGUMENT)
    if wanted == _EXCLUSIVE_THREAD:
        raise Refused(Return.NOT_SUPPORTED)
    call.require_privileges()
    call.change_gpu(lambda gpu: gpu.model_copy(update={"compute_mode": wanted}))


def _is_mig_device(call: DeviceCall, answer: Any) -> None:
    target(answer).value = int(call.target.kind is Kind.MIG_DEVICE)


FUNCTIONS: FunctionTable = {
    "nvmlDeviceGetName": Function(_name, _WITH_MIG),
    "nvmlDeviceGetUUID": Function(_uuid, _WITH_MIG),
    "nvmlDeviceGetSerial": Function(_serial, (Kind.GPU,)),
    "nvmlDeviceGetMinorNumber": Function(_minor_number, (Kind.GPU,)),
    "nvmlDeviceGetIndex": Function(_index, (Kind.GPU,)),
    "nvmlDeviceGetPciInfo_v3": Function(_pci_info, (Kind.GPU,)),
    "nvmlDeviceGetMemoryInfo": Function(_memory_info, _WITH_MIG),
    "nvmlDeviceGetMemoryInfo_v2": Function(_memory_info_v2, _WITH_MIG),
    "nvmlDeviceGetBAR1MemoryInfo": Function(_bar1_memory_info, _WITH_MIG),
    "nvmlDeviceGetBrand": Function(_brand, (Kind.GPU,)),
    "nvmlDeviceGetArchitecture": Function(_architecture, (Kind.GPU,)),
    "nvmlDeviceGetCudaComputeCapability": Function(_compute_capability, _WITH_MIG),
    "nvmlDeviceGetAddressingMode": Function(_addressing_mode, (Kind.GPU,)),
    "nvmlDeviceGetComputeMode": Function(_compute_mode, (Kind.GPU,)),
    "nvmlDeviceSetComputeMode": Function(_set_compute_mode, (Kind.GPU,)),
    "nvmlDeviceIsMigDeviceHandle": Function(_is_mig_device, _WITH_MIG),
}
