"""Event sets of the simulated library: changes of MIG and XID errors, as they show in the state file.

An event set remembers how many of each its GPUs had when they were registered, and gives out what came since, each one
once. Waiting looks at the file again and again, which costs one stat when nothing changed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, address_of, number, set_address, target
from dra_driver.simulation.hardware.calls import Call, DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind, Target
from dra_driver.simulation.hardware.state import GpuState, SimulatedState

XID = 0x8  # nvmlEventTypeXidCriticalError
MIG_CHANGE = 0x100  # nvmlEventMigConfigChange

_POLL_SECONDS = 0.02
_NO_INSTANCE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of one GPU an event set has given out, and which types it gives out at all."""

    types: int
    mig_changes: int
    xids: int


class EventSets:
    """This process's event sets, by number. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._created = 0
        self._sets: dict[int, dict[int, _Seen]] = {}

    def create(self) -> int:
        with self._lock:
            self._created += 1
            self._sets[self._created] = {}
            return self._created

    def register(self, event_set: int, gpu: int, types: int, state: GpuState) -> None:
        """From now on; types that were registered before stay."""
        with self._lock:
            seen = self._of(event_set).get(gpu)
            known = seen or _Seen(0, state.mig_changes, len(state.xids))
            self._of(event_set)[gpu] = replace(known, types=known.types | types)

    def take(self, event_set: int, state: SimulatedState) -> tuple[int, int, int] | None:
        """The next event as GPU, type and data; None when there is none."""
        with self._lock:
            for gpu, seen in self._of(event_set).items():
                if gpu in state.faults.lost_gpus:
                    raise Refused(Return.GPU_IS_LOST)
                now = state.gpus[gpu]
                if seen.types & XID and len(now.xids) > seen.xids:
                    self._of(event_set)[gpu] = replace(seen, xids=seen.xids + 1)
                    return gpu, XID, now.xids[seen.xids]
                if seen.types & MIG_CHANGE and now.mig_changes > seen.mig_changes:
                    self._of(event_set)[gpu] = replace(seen, mig_changes=seen.mig_changes + 1)
                    return gpu, MIG_CHANGE, 0
        return None

    def free(self, event_set: int) -> None:
        with self._lock:
            self._of(event_set)
            del self._sets[event_set]

    def clear(self) -> None:
        """The library was shut down: its event sets are gone."""
        with self._lock:
            self._sets.clear()

    def _of(self, event_set: int) -> dict[int, _Seen]:
        found = self._sets.get(event_set)
        if found is None:
            raise Refused(Return.INVALID_ARGUMENT)
        return found


def _create(call: Call, event_set: Any) -> None:
    call.give_handle(event_set, Target(Kind.EVENT_SET, -1, created=call.events.create()))


def _supported(call: DeviceCall, types: Any) -> None:
    target(types).value = _supported_types(call)


def _supported_types(call: DeviceCall) -> int:
    return XID if call.product.mig_profiles is None else XID | MIG_CHANGE


def _register(call: DeviceCall, types: Any, event_set: Any) -> None:
    wanted = number(types)
    if wanted & ~_supported_types(call):
        raise Refused(Return.NOT_SUPPORTED)
    found = call.handles.find(address_of(event_set), Kind.EVENT_SET)
    call.events.register(found.created, call.index, wanted, call.gpu)


def _wait(call: DeviceCall, data: Any, timeout_ms: Any) -> None:
    structure = target(data)
    deadline = time.monotonic() + number(timeout_ms) / 1000
    while (event := call.events.take(call.target.created, call.file.read())) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Refused(Return.TIMEOUT)
        time.sleep(min(left, _POLL_SECONDS))
    gpu, structure.eventType, structure.eventData = event
    set_address(structure.device, call.handles.address(Target(Kind.GPU, gpu)))
    structure.gpuInstanceId = structure.computeInstanceId = _NO_INSTANCE


def _free(call: DeviceCall) -> None:
    call.events.free(call.target.created)


FUNCTIONS: FunctionTable = {
    "nvmlEventSetCreate": Function(_create),
    "nvmlDeviceGetSupportedEventTypes": Function(_supported, (Kind.GPU,)),
    "nvmlDeviceRegisterEvents": Function(_register, (Kind.GPU,)),
    "nvmlEventSetWait_v2": Function(_wait, (Kind.EVENT_SET,)),
    "nvmlEventSetFree": Function(_free, (Kind.EVENT_SET,)),
}
