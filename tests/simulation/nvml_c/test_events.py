"""The contract of the C library: event sets, and waits on them."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults
from tests.simulation.nvml_c.signatures import mig_mode, serial
from tests.simulation.nvml_c.twins import Arguments, Twins, given, needs_compiler

pytestmark = needs_compiler


def wait(events: Any, milliseconds: int = 0) -> Callable[[], Arguments]:
    def make() -> Arguments:
        data = pynvml.c_nvmlEventData_t()
        return Arguments((events, ctypes.byref(data), milliseconds), (data,))

    return make


def test_events(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpus = [twins.gpu(0), twins.gpu(1)]
    twins.change(lambda path: faults.add_xid(path, 0, 13))
    events, other = twins.handle("nvmlEventSetCreate"), twins.handle("nvmlEventSetCreate")
    for types, gpu, into in ((0x108, gpus[0], events), (0x8, gpus[1], events), (0x100, gpus[0], other)):
        assert (
            twins.call("nvmlDeviceRegisterEvents", given(gpu, ctypes.c_ulonglong(types), into)).code == Return.SUCCESS
        )
    for wrong in ((gpus[0], ctypes.c_ulonglong(0x200), events), (gpus[0], ctypes.c_ulonglong(8), gpus[0])):
        twins.call("nvmlDeviceRegisterEvents", given(*wrong))
    assert twins.call("nvmlEventSetWait_v2", wait(events)).code == Return.TIMEOUT
    twins.change(lambda path: faults.add_xid(path, 1, 79))
    twins.change(lambda path: faults.add_xid(path, 0, 48))
    twins.call("nvmlDeviceSetMigMode", mig_mode(gpus[0], 1))
    codes = [twins.call("nvmlEventSetWait_v2", wait(events, 5)).code for _ in range(5)]
    assert codes == [Return.SUCCESS] * 3 + [Return.TIMEOUT] * 2
    assert twins.call("nvmlEventSetWait_v2", wait(other)).code == Return.SUCCESS
    assert twins.call("nvmlEventSetFree", given(other)).code == Return.SUCCESS
    assert twins.call("nvmlEventSetFree", given(other)).code == Return.INVALID_ARGUMENT
    twins.call("nvmlShutdown")
    assert twins.call("nvmlEventSetWait_v2", wait(events)).code == Return.UNINITIALIZED
    twins.start()
    assert twins.call("nvmlEventSetWait_v2", wait(events)).code == Return.INVALID_ARGUMENT


def test_a_wait_ends_with_an_event_and_holds_nobody_up(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    gpu, events = twins.gpu(1), twins.handle("nvmlEventSetCreate")
    twins.call("nvmlDeviceRegisterEvents", given(gpu, ctypes.c_ulonglong(8), events))
    data, codes = pynvml.c_nvmlEventData_t(), []

    def wait() -> None:
        codes.append(twins.library.nvmlEventSetWait_v2(events, ctypes.byref(data), 60_000))

    waiting = threading.Thread(target=wait, name="event-wait")
    waiting.start()
    give_up = time.monotonic() + 30
    while waiting.is_alive() and time.monotonic() < give_up:
        assert twins.library.nvmlDeviceGetSerial(*serial(gpu)().passed) == Return.SUCCESS
        faults.add_xid(twins.c.state_file, 1, 79)
        waiting.join(0.1)
    assert not waiting.is_alive()
    assert (codes, data.eventType, data.eventData) == ([Return.SUCCESS], 8, 79)


def watches() -> int:
    """Descriptors of this process by which the kernel tells of changes in folders."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this very listing
            found += descriptor.readlink().name.startswith("anon_inode:inotify")
    return found


def test_sets_watch_the_state_from_their_first_wait_and_hand_the_watch_on(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    before, gpu = watches(), twins.gpu(1)
    for _ in range(3):
        events = twins.handle("nvmlEventSetCreate")
        twins.call("nvmlDeviceRegisterEvents", given(gpu, ctypes.c_ulonglong(8), events))
        for _ in range(2):
            assert twins.call("nvmlEventSetWait_v2", wait(events, 5)).code == Return.TIMEOUT
        assert watches() == before + 1
        twins.change(lambda path: faults.add_xid(path, 1, 79))
        assert twins.call("nvmlEventSetWait_v2", wait(events, 5)).code == Return.SUCCESS
        assert twins.call("nvmlEventSetFree", given(events)).code == Return.SUCCESS
    twins.call("nvmlShutdown")
    assert watches() == before


def test_a_set_that_is_freed_ends_the_wait_for_it(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    before, gpu, events = watches(), twins.gpu(1), twins.handle("nvmlEventSetCreate")
    twins.call("nvmlDeviceRegisterEvents", given(gpu, ctypes.c_ulonglong(8), events))
    data, codes = pynvml.c_nvmlEventData_t(), []
    waiting = threading.Thread(
        target=lambda: codes.append(twins.library.nvmlEventSetWait_v2(events, ctypes.byref(data), 60_000)),
        name="event-wait",
    )
    waiting.start()
    give_up = time.monotonic() + 30
    while watches() == before and time.monotonic() < give_up:
        waiting.join(0.01)
    assert twins.library.nvmlEventSetFree(events) == Return.SUCCESS
    waiting.join(30)
    assert codes == [Return.INVALID_ARGUMENT]
    twins.call("nvmlShutdown")
    assert watches() == before
