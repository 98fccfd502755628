"""Faults to play on simulated hardware, written into its state file.

Every process that uses the file sees them at its next NVML call.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dra_driver.simulation.hardware.state import (
    CallFault,
    ClientState,
    Faults,
    GpuLatency,
    GpuState,
    MpsFault,
    SimulatedState,
)
from dra_driver.simulation.hardware.state_file import StateFile


def inject_error(
    state_file: Path, function: str, code: int, *, gpu: int | None = None, times: int | None = None
) -> None:
    """``function`` (an NVML name) answers ``code``: for one GPU (NVML index) or all, ``times`` times or for ever."""
    fault = CallFault(function=function, code=code, gpu=gpu, times=times)
    _change(state_file, lambda faults: faults.model_copy(update={"calls": (*faults.calls, fault)}))


def inject_latency(state_file: Path, function: str, seconds: float, *, gpu: int | None = None) -> None:
    """Every call of ``function`` takes ``seconds`` longer; "*" for every function without its own latency.

    With ``gpu`` (NVML index) only calls about that GPU do; then ``function`` is a name.
    """

    def change(faults: Faults) -> Faults:
        if gpu is None:
            return faults.model_copy(update={"latency": {**faults.latency, function: seconds}})
        others = tuple(each for each in faults.gpu_latency if (each.function, each.gpu) != (function, gpu))
        new = GpuLatency(function=function, gpu=gpu, seconds=seconds)
        return faults.model_copy(update={"gpu_latency": (*others, new)})

    _change(state_file, change)


def hide_function(state_file: Path, function: str) -> None:
    """The library lacks ``function``, as an older driver does."""
    _change(
        state_file,
        lambda faults: faults.model_copy(update={"missing_functions": (*faults.missing_functions, function)}),
    )


def lose_gpu(state_file: Path, index: int) -> None:
    """The GPU falls off the bus: NVML still counts it, and every call about it says that it is lost."""
    _change(
        state_file, lambda faults: faults.model_copy(update={"lost_gpus": tuple(sorted({*faults.lost_gpus, index}))})
    )


def lose_library(state_file: Path) -> None:
    """The driver library cannot be found: initialisation says so."""
    _change(state_file, lambda faults: faults.model_copy(update={"library_missing": True}))


def inject_mps_fault(
    state_file: Path,
    *,
    gpu: int | None = None,
    start_seconds: float = 0.0,
    answer_seconds: float = 0.0,
    hang: tuple[str, ...] = (),
    crash: tuple[str, ...] = (),
    wedge: bool = False,
) -> None:
    """MPS daemons that have ``gpu`` (NVML index), or all, are slow, silent or die: ``state.MpsFault`` says how."""
    fault = MpsFault(
        gpu=gpu, start_seconds=start_seconds, answer_seconds=answer_seconds, hang=hang, crash=crash, wedge=wedge
    )
    _change(state_file, lambda faults: faults.model_copy(update={"mps": (*faults.mps, fault)}))


def forget_memory_limits(state_file: Path) -> None:
    """No cgroup has a limit any more, as after a driver that was loaded anew."""
    StateFile(state_file).update(
        lambda state: state.model_copy(
            update={"gpus": tuple(gpu.model_copy(update={"memory_limits": ()}) for gpu in state.gpus)}
        )
    )


def add_client(state_file: Path, uuid: str, *, pid: int = 4242) -> None:
    """A process uses the GPU or MIG device of ``uuid``: what would take it away answers "in use".

    ValueError when there is no such device.
    """
    _change_clients(state_file, uuid, lambda clients: (*clients, ClientState(pid=pid, uuid=uuid)))


def remove_client(state_file: Path, uuid: str, *, pid: int = 4242) -> None:
    """The process ends. ValueError when there is no such device."""
    gone = ClientState(pid=pid, uuid=uuid)
    _change_clients(state_file, uuid, lambda clients: tuple(each for each in clients if each != gone))


def add_xid(state_file: Path, index: int, xid: int) -> None:
    """The GPU reports an XID error: event sets that wait for it get it, once each."""
    _change_gpu(state_file, index, lambda gpu: gpu.model_copy(update={"xids": (*gpu.xids, xid)}))


def reset_gpu(state_file: Path, index: int) -> None:
    """The GPU is reset: see :meth:`GpuState.reset`."""
    _change_gpu(state_file, index, GpuState.reset)


def reboot(state_file: Path, boot_id: str) -> None:
    """The machine boots anew, as ``boot_id``, which its file tree has once it is built again. Faults stay."""
    StateFile(state_file).update(
        lambda state: state.model_copy(update={"boot_id": boot_id, "gpus": tuple(gpu.reset() for gpu in state.gpus)})
    )


def clear_faults(state_file: Path) -> None:
    """Everything works again."""
    _change(state_file, lambda _faults: Faults())


def take_error(file: StateFile, state: SimulatedState, function: str, gpu: int | None) -> int | None:
    """The code that ``function`` must answer now, if a fault says so; counts down faults that last N times."""
    fault = _matching(state.faults, function, gpu)
    if fault is None:
        return None
    if fault.times is None:
        return fault.code
    taken: list[int] = []

    def count_down(current: SimulatedState) -> SimulatedState:
        match = _matching(current.faults, function, gpu)  # another process may have used it up
        if match is None:
            return current
        taken.append(match.code)
        return _used_once(current, match)

    file.update(count_down)
    return taken[0] if taken else None


def _used_once(state: SimulatedState, fault: CallFault) -> SimulatedState:
    if fault.times is None:
        return state
    left = () if fault.times == 1 else (fault.model_copy(update={"times": fault.times - 1}),)
    position = state.faults.calls.index(fault)
    calls = (*state.faults.calls[:position], *left, *state.faults.calls[position + 1 :])
    return state.model_copy(update={"faults": state.faults.model_copy(update={"calls": calls})})


def _matching(faults: Faults, function: str, gpu: int | None) -> CallFault | None:
    return next((each for each in faults.calls if each.function == function and each.gpu in (None, gpu)), None)


def _change_clients(
    state_file: Path, uuid: str, change: Callable[[tuple[ClientState, ...]], tuple[ClientState, ...]]
) -> None:
    def changed(state: SimulatedState) -> SimulatedState:
        for index, gpu in enumerate(state.gpus):
            if uuid in (gpu.uuid, *(compute.uuid for _, compute in gpu.mig_devices())):
                return state.with_gpu(index, gpu.model_copy(update={"clients": change(gpu.clients)}))
        raise ValueError(f"no device {uuid} in {state_file}")

    StateFile(state_file).update(changed)


def _change_gpu(state_file: Path, index: int, change: Callable[[GpuState], GpuState]) -> None:
    StateFile(state_file).update(lambda state: state.with_gpu(index, change(state.gpus[index])))


def _change(state_file: Path, change: Callable[[Faults], Faults]) -> None:
    StateFile(state_file).update(lambda state: state.model_copy(update={"faults": change(state.faults)}))
