"""Simulated functions of the whole system: versions, the list of GPUs, error texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.names import pci_bus_id
from dra_driver.simulation.hardware.arguments import Refused, number, target, text, write_text
from dra_driver.simulation.hardware.calls import Call, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind, Target

_TEXTS = {
    Return.SUCCESS: "Success",
    Return.INSUFFICIENT_RESOURCES: "Insufficient Resources",
    Return.IN_USE: "In use by another client",
    Return.NO_DATA: "No data",
    Return.ARGUMENT_VERSION_MISMATCH: "Argument version mismatch",
    Return.NOT_READY: "Not Ready",
    Return.GPU_NOT_FOUND: "GPU Not Found",
    Return.INVALID_STATE: "Invalid State",
}


def error_string(code: Any) -> bytes:
    """nvmlErrorString: a text for every code, before initialisation too."""
    try:
        known = Return(number(code))
    except ValueError:
        return b"Unknown Error"
    return _TEXTS.get(known, known.name.replace("_", " ").title()).encode()


def _driver_version(call: Call, buffer: Any, length: Any) -> None:
    write_text(buffer, length, _version(call))


def _nvml_version(call: Call, buffer: Any, length: Any) -> None:
    cuda = call.state.cuda_driver_version
    write_text(buffer, length, f"{cuda // 1000}.{_version(call)}")


def _version(call: Call) -> str:
    """The kernel module's, which is the library's too: no call gets here with another one."""
    return call.state.module_version or ""


def _cuda_driver_version(call: Call, version: Any) -> None:
    target(version).value = call.state.cuda_driver_version


def _process_name(_call: Call, pid: Any, buffer: Any, length: Any) -> None:
    """The program of a process of this machine; "not found" for one that only the state knows."""
    try:
        words = Path(f"/proc/{number(pid)}/cmdline").read_bytes().split(b"\0")
    except OSError as error:
        raise Refused(Return.NOT_FOUND) from error
    write_text(buffer, length, words[0].decode(errors="replace"))


def _count(call: Call, count: Any) -> None:
    target(count).value = len(call.state.gpus)  # a lost GPU is still counted


def _handle_by_index(call: Call, index: Any, device: Any) -> None:
    wanted = number(index)
    if not 0 <= wanted < len(call.state.gpus):
        raise Refused(Return.INVALID_ARGUMENT)
    _give_gpu(call, wanted, device)


def _handle_by_uuid(call: Call, uuid: Any, device: Any) -> None:
    wanted = text(uuid)
    for index, gpu in enumerate(call.state.gpus):
        if gpu.uuid == wanted:
            _give_gpu(call, index, device)
            return
        for instance, compute in gpu.mig_devices():
            if compute.uuid == wanted:
                call.require_present(index)
                call.give_handle(device, Target.of_mig_device(index, instance, compute))
                return
    raise Refused(Return.NOT_FOUND)


def _handle_by_pci_bus_id(call: Call, bus_id: Any, device: Any) -> None:
    try:
        wanted = pci_bus_id(text(bus_id))
    except ValueError as error:
        raise Refused(Return.INVALID_ARGUMENT) from error
    for index, gpu in enumerate(call.state.machine.hardware.gpus):
        if gpu.pci_bus_id == wanted:
            _give_gpu(call, index, device)
            return
    raise Refused(Return.NOT_FOUND)


def _give_gpu(call: Call, index: int, device: Any) -> None:
    call.require_present(index)
    call.give_handle(device, Target(Kind.GPU, index))


FUNCTIONS: FunctionTable = {
    "nvmlSystemGetDriverVersion": Function(_driver_version),
    "nvmlSystemGetNVMLVersion": Function(_nvml_version),
    "nvmlSystemGetCudaDriverVersion": Function(_cuda_driver_version),
    "nvmlSystemGetCudaDriverVersion_v2": Function(_cuda_driver_version),
    "nvmlSystemGetProcessName": Function(_process_name),
    "nvmlDeviceGetCount_v2": Function(_count),
    "nvmlDeviceGetHandleByIndex_v2": Function(_handle_by_index),
    "nvmlDeviceGetHandleByUUID": Function(_handle_by_uuid),
    "nvmlDeviceGetHandleByPciBusId_v2": Function(_handle_by_pci_bus_id),
}
