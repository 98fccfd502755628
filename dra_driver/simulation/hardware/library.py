"""The simulated libnvidia-ml: an object whose attributes are callables named like NVML's C functions.

It stands in the place of ``pynvml.nvmlLib``, so pynvml's own wrappers and our adapter run for real. An attribute that
is not there is an AttributeError, which pynvml reports as "function not found", as with an older driver; so what is not
simulated fails that way and never silently. Calls before initialisation, wrong handles and short buffers are refused
with NVML's codes. State and faults come from the state file; what a process holds is its handles, its event sets and
its init count. The library is of the driver version that the node's files had when it was initialised first, as a
mapped library is: a driver that is installed later is for processes that start later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dra_driver.hardware.nvml import binding
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import (
    device,
    driver_branches,
    events,
    memory_limits,
    mig,
    system,
    telemetry,
    time_slice,
)
from dra_driver.simulation.hardware.arguments import Refused, address_of, number
from dra_driver.simulation.hardware.calls import Call, DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.faults import take_error
from dra_driver.simulation.hardware.handles import Handles
from dra_driver.simulation.hardware.state import SimulatedState
from dra_driver.simulation.hardware.state_file import StateFile

logger = logging.getLogger(__name__)

FUNCTIONS: FunctionTable = {
    **system.FUNCTIONS,
    **device.FUNCTIONS,
    **telemetry.FUNCTIONS,
    **mig.FUNCTIONS,
    **events.FUNCTIONS,
    **time_slice.FUNCTIONS,
    **memory_limits.FUNCTIONS,
}

_NO_GPUS_IS_FINE = 1  # NVML_INIT_FLAG_NO_GPUS


class CFunction:
    """One function. An object of its own, since ctypes lets callers set ``restype`` on functions, and pynvml does."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run
        self.restype: Any = None
        self.argtypes: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)


class SimulatedLibrary:
    """The library as one process sees it. ``sleep`` plays latencies."""

    def __init__(self, file: StateFile, sleep: Callable[[float], None] = time.sleep) -> None:
        self._file = file
        self._sleep = sleep
        self._handles = Handles()
        self._events = events.EventSets()
        self._lock = threading.Lock()
        self._initialised = 0
        self._version: str | None = None  # of the driver that this library came with; None before it was loaded
        # These work without initialisation.
        self._lifecycle: dict[str, Callable[..., Any]] = {
            "nvmlInitWithFlags": lambda flags: self._init("nvmlInitWithFlags", flags),
            "nvmlInit_v2": lambda: self._init("nvmlInit_v2", 0),
            "nvmlShutdown": self._shutdown,
            "nvmlErrorString": system.error_string,
        }

    def __getattr__(self, name: str) -> CFunction:
        # Python asks here only for what is not a real attribute; pynvml caches what it gets.
        if name in self._lifecycle:
            return CFunction(self._lifecycle[name])
        function = FUNCTIONS.get(name)
        if function is None:
            raise AttributeError(name)
        state = self._file.read()
        if name in state.faults.missing_functions or self._branch(state) < function.since:
            raise AttributeError(name)
        return CFunction(lambda *arguments: self._guarded(name, function, arguments))

    def _init(self, name: str, flags: Any) -> int:
        state = self._file.read()
        self._wait(state, name, None)
        if state.faults.library_missing:
            return int(Return.LIBRARY_NOT_FOUND)
        code = take_error(self._file, state, name, None)
        if code is not None:
            return code
        if self._version is None:
            self._version = state.library_version
        if (answer := self._of_module(state)) is not Return.SUCCESS:
            return int(answer)
        if not state.gpus and not number(flags) & _NO_GPUS_IS_FINE:
            return int(Return.NOT_FOUND)
        with self._lock:
            self._initialised += 1
        return int(Return.SUCCESS)

    def _branch(self, state: SimulatedState) -> int:
        version = self._version or state.library_version
        return 0 if version is None else driver_branches.branch(version)

    def _of_module(self, state: SimulatedState) -> Return:
        """What the kernel module answers to this library. The real one cannot be exchanged while a process uses it."""
        if self._version is None:
            return Return.LIBRARY_NOT_FOUND
        if state.module_version is None:
            return Return.DRIVER_NOT_LOADED
        return Return.SUCCESS if state.module_version == self._version else Return.LIB_RM_VERSION_MISMATCH

    def _shutdown(self) -> int:
        with self._lock:
            if self._initialised == 0:
                return int(Return.UNINITIALIZED)
            self._initialised -= 1
            if self._initialised == 0:
                self._events.clear()
        return int(Return.SUCCESS)

    def _guarded(self, name: str, function: Function, arguments: tuple[Any, ...]) -> int:
        """A call in NVML's order: initialised? latency, module, handle, injected error, lost GPU, then the function."""
        with self._lock:
            if self._initialised == 0:
                return int(Return.UNINITIALIZED)
        state = self._file.read()
        if self._wait(state, name, self._gpu_of(function, arguments)):
            state = self._file.read()  # what changed while the call was slow counts
        if (answer := self._of_module(state)) is not Return.SUCCESS:
            return int(answer)
        try:
            call = self._prepare(state, function, arguments)
            code = take_error(self._file, state, name, call.index if isinstance(call, DeviceCall) else None)
            if code is not None:
                return code
            if isinstance(call, DeviceCall):
                call.require_present(call.index)
                arguments = arguments[1:]
            function.run(call, *arguments)
        except Refused as refused:
            return int(refused.code)
        except OSError as error:
            logger.warning("simulated %s: the node's files cannot be written: %s", name, error)
            return int(Return.OPERATING_SYSTEM)
        return int(Return.SUCCESS)

    def _prepare(self, state: SimulatedState, function: Function, arguments: tuple[Any, ...]) -> Call:
        if not function.kinds:
            return Call(state, self._file, self._handles, self._events)
        if not arguments:
            raise Refused(Return.INVALID_ARGUMENT)
        target = self._handles.find(address_of(arguments[0]), *function.kinds)
        return DeviceCall(state, self._file, self._handles, self._events, target)

    def _gpu_of(self, function: Function, arguments: tuple[Any, ...]) -> int | None:
        """The GPU that a call is about; None where its handle will be refused, or it takes none."""
        if not function.kinds:
            return None
        try:
            return self._handles.find(address_of(next(iter(arguments), None)), *function.kinds).gpu
        except Refused:
            return None

    def _wait(self, state: SimulatedState, name: str, gpu: int | None) -> bool:
        """Play the call's latency; whether there is any."""
        seconds = state.faults.seconds(name, gpu)
        if seconds <= 0:
            return False
        self._sleep(seconds)
        return True


def install(state_file: Path) -> None:
    """From now on this process's NVML is the simulated one with the state in ``state_file``.

    HardwareUnavailable when the file is not a state. Call it before NVML is initialised.
    """
    file = StateFile(state_file)
    file.read()
    binding.replace(SimulatedLibrary(file))


def uninstall() -> None:
    """Forget the simulated library; the next initialisation loads the real one."""
    binding.replace(None)
