"""MIG mode of a simulated GPU: at once on Hopper and newer, after the next reset on Ampere.

nvmlDeviceSetMigMode answers twice. Its own code says whether the request was taken; ``activationStatus`` says whether
the mode is active now, and if not, why (nvml.h): "in use" while a process holds the GPU, "reset required" on Ampere.
Then the mode is pending. With GPU instances MIG cannot be switched off at all.
"""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, number, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind
from dra_driver.simulation.hardware.mig.profiles import profiles_of
from dra_driver.simulation.hardware.state import GpuState

_NEEDS_RESET = frozenset({"Ampere"})


def _mode(call: DeviceCall, current: Any, pending: Any) -> None:
    profiles_of(call)
    target(current).value, target(pending).value = int(call.gpu.mig_enabled), int(call.gpu.mig_pending)


def _set_mode(call: DeviceCall, mode: Any, activation_status: Any) -> None:
    profiles_of(call)
    wanted, status = number(mode), target(activation_status)
    if wanted not in (0, 1):
        raise Refused(Return.INVALID_ARGUMENT)
    call.require_privileges()
    answers: list[Return] = []

    def change(gpu: GpuState) -> GpuState:
        changed, answer = _requested(gpu, bool(wanted), needs_reset=call.product.architecture in _NEEDS_RESET)
        answers.append(answer)
        return changed

    call.change_gpu(change)
    status.value = int(answers[-1])


def _requested(gpu: GpuState, wanted: bool, *, needs_reset: bool) -> tuple[GpuState, Return]:
    if gpu.instances and not wanted:
        raise Refused(Return.IN_USE)
    if wanted == gpu.mig_enabled:
        same = gpu if gpu.mig_pending == wanted else gpu.with_mode(enabled=wanted, pending=wanted)
        return same, Return.SUCCESS
    if needs_reset:
        return gpu.with_mode(enabled=gpu.mig_enabled, pending=wanted), Return.RESET_REQUIRED
    if gpu.is_used(gpu.uuid):
        return gpu.with_mode(enabled=gpu.mig_enabled, pending=wanted), Return.IN_USE
    return gpu.with_mode(enabled=wanted, pending=wanted), Return.SUCCESS


FUNCTIONS: FunctionTable = {
    "nvmlDeviceGetMigMode": Function(_mode, (Kind.GPU,)),
    "nvmlDeviceSetMigMode": Function(_set_mode, (Kind.GPU,)),
}
