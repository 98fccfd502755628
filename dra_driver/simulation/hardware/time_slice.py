"""The time-slice interval of a GPU. The real nvidia-smi reaches it through an interface that NVML does not publish.

So these are no NVML functions: they go by the names of the commands that call them, by which faults are played, too.
GPUs without preemption within a kernel have no interval: those before Pascal, and all Pascals but GP100, whose compute
capability is 6.0 (NVIDIA's Pascal tuning guide; Tesla P4 in kubernetes-sigs/dra-driver-nvidia-gpu#41).
"""

from __future__ import annotations

from typing import Any, Final

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, number, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind

LIST: Final = "nvidia-smi compute-policy --list"
SET: Final = "nvidia-smi compute-policy --set-timeslice"

INTERVALS: Final = ("Default", "Short", "Medium", "Long")  # by nvidia-smi's number

_PREEMPTED_WITHIN_KERNELS = ("6.0",)
_ALL_SINCE = 7  # Volta


def _require_interval(call: DeviceCall) -> None:
    capability = call.product.cuda_compute_capability
    if int(capability.split(".")[0]) < _ALL_SINCE and capability not in _PREEMPTED_WITHIN_KERNELS:
        raise Refused(Return.NOT_SUPPORTED)


def _list(call: DeviceCall, interval: Any) -> None:
    _require_interval(call)
    target(interval).value = call.gpu.time_slice


def _set(call: DeviceCall, interval: Any) -> None:
    wanted = number(interval)
    if not 0 <= wanted < len(INTERVALS):
        raise Refused(Return.INVALID_ARGUMENT)
    _require_interval(call)
    call.require_privileges()
    call.change_gpu(lambda gpu: gpu.model_copy(update={"time_slice": wanted}))


FUNCTIONS: FunctionTable = {LIST: Function(_list, (Kind.GPU,)), SET: Function(_set, (Kind.GPU,))}
