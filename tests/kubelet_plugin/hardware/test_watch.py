"""Readings, failures, withdrawal after several failures, and a reading that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import DriverReplaced, Reading, VersionMismatch
from dra_driver.observability.loops import standing_still
from kubelet_plugin.hardware.watch import FAILURES_BEFORE_WITHDRAWAL, HardwareWatch
from tests.kubelet_plugin.fakes import eventually

MACHINE = Machine("580.105.08", 13000)


class Hardware:
    """Answers with ``machine``, or fails with ``error`` at ``start`` or ``read``."""

    def __init__(self) -> None:
        self.machine = MACHINE
        self.start_error: Exception | None = None
        self.read_error: Exception | None = None
        self.reads = 0
        self.stops = 0
        self.hang = threading.Event()
        self.hang.set()

    def start(self) -> None:
        if self.start_error:
            raise self.start_error

    def stop(self) -> None:
        self.stops += 1

    def read(self) -> Reading:
        self.reads += 1
        self.hang.wait(10)
        if self.read_error:
            raise self.read_error
        return Reading(self.machine)


@pytest.fixture
def hardware() -> Hardware:
    return Hardware()


@pytest.fixture
def watch(hardware: Hardware) -> Iterator[HardwareWatch]:
    watch = HardwareWatch(hardware, 0, retry=0.01)
    yield watch
    hardware.hang.set()
    watch.stop()


def test_a_good_reading(watch: HardwareWatch) -> None:
    changes: list[int] = []
    watch.on_change(lambda: changes.append(1))
    with pytest.raises(HardwareUnavailable, match="not read yet"):
        watch.machine()
    watch.scan()
    watch.scan()
    assert watch.machine() == MACHINE
    assert watch.state.problem == ""
    assert changes == [1]


def test_a_machine_that_never_was_is_not_kept(watch: HardwareWatch, hardware: Hardware) -> None:
    hardware.start_error = HardwareUnavailable("no libnvidia-ml.so.1; looked for /a, /b", hint="install the driver")
    watch.scan()
    assert (watch.state.read, watch.state.machine) == (True, None)
    with pytest.raises(HardwareUnavailable, match="looked for /a, /b"):
        watch.machine()
    assert hardware.stops == 1  # the next try begins from nothing
    assert watch.state.tentative, "a process before this one may have read it"
    for _ in range(FAILURES_BEFORE_WITHDRAWAL - 1):
        watch.scan()
    assert not watch.state.tentative


def test_a_machine_is_withdrawn_after_failures_in_a_row_only(watch: HardwareWatch, hardware: Hardware) -> None:
    watch.scan()
    hardware.read_error = HardwareError("driver/library version mismatch")
    for _ in range(FAILURES_BEFORE_WITHDRAWAL - 1):
        watch.scan()
        assert watch.state.machine == MACHINE
        assert "mismatch" in watch.state.problem
    hardware.read_error = None
    watch.scan()
    assert watch.state.problem == ""
    hardware.read_error = HardwareError("gone")
    for _ in range(FAILURES_BEFORE_WITHDRAWAL):
        watch.scan()
    assert watch.state.machine is None


def test_a_bug_in_a_reading_is_a_problem_and_not_the_end(watch: HardwareWatch, hardware: Hardware) -> None:
    hardware.read_error = KeyError("surprise")
    watch.start()
    assert watch.wait_for_first_reading(5)
    assert "surprise" in watch.state.problem
    hardware.read_error = None
    eventually(lambda: watch.state.machine == MACHINE)


def test_failures_are_tried_again_and_a_scan_can_be_asked_for(watch: HardwareWatch, hardware: Hardware) -> None:
    hardware.start_error = HardwareUnavailable("not yet")
    watch.start()
    assert watch.wait_for_first_reading(5)
    hardware.start_error = None
    eventually(lambda: watch.state.machine == MACHINE)
    reads = hardware.reads
    watch.request_scan()
    eventually(lambda: hardware.reads > reads)


def test_a_hanging_reading_blocks_nobody_and_is_seen(watch: HardwareWatch, hardware: Hardware) -> None:
    hardware.hang.clear()
    watch.start()
    eventually(lambda: watch.hanging_for() > 0)
    assert not watch.wait_for_first_reading(0)
    with pytest.raises(HardwareUnavailable):
        watch.machine()
    watch.stop(timeout=0.05)
    assert hardware.stops == 0  # the library is in use
    hardware.hang.set()


def test_a_replaced_driver_is_told_and_what_may_end_by_itself_is_not(watch: HardwareWatch, hardware: Hardware) -> None:
    told: list[str] = []
    watch.on_driver_replaced(told.append)
    watch.scan()
    hardware.read_error = HardwareUnavailable("nvmlDeviceGetCount failed: NVML_ERROR_DRIVER_NOT_LOADED")
    watch.scan()
    hardware.read_error = VersionMismatch("nvmlInitWithFlags failed: NVML_ERROR_LIB_RM_VERSION_MISMATCH")
    watch.scan()
    assert told == []
    hardware.read_error = DriverReplaced("the NVIDIA driver was replaced", hint="the process ends")
    watch.scan()
    assert told == ["the NVIDIA driver was replaced (the process ends)"]


def test_a_reading_that_hangs_for_a_minute_stands_still(hardware: Hardware) -> None:
    now = [0.0]
    watch = HardwareWatch(hardware, 0, clock=lambda: now[0])
    hardware.hang.clear()
    watch.start()
    eventually(lambda: hardware.reads == 1)
    assert standing_still([watch.loop]) is None
    now[0] = 61.0
    assert standing_still([watch.loop]) == ("hardware-watch stands still: a reading of the hardware takes 61 s already")
    hardware.hang.set()
    eventually(lambda: standing_still([watch.loop]) is None)
    watch.stop()


def test_a_listener_that_raises_ends_neither_the_watch_nor_what_others_are_told(
    watch: HardwareWatch, hardware: Hardware, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[int] = []
    readings: list[int] = []

    def breaks() -> None:
        raise KeyError("surprise")

    watch.on_change(breaks)
    watch.on_change(lambda: changes.append(1))
    watch.on_reading(breaks)
    watch.on_reading(lambda: readings.append(1))
    watch.start()
    assert watch.wait_for_first_reading(5)
    watch.request_scan()
    eventually(lambda: readings == [1, 1])
    assert changes == [1]
    assert watch.loop.errors == 3
    assert "the hardware changed: a listener failed" in caplog.text


def test_listeners_to_readings_hear_also_of_those_that_change_nothing(watch: HardwareWatch) -> None:
    changes, readings = [], []
    watch.on_change(lambda: changes.append(1))
    watch.on_reading(lambda: readings.append(watch.state.machine))
    watch.scan()
    watch.scan()
    assert len(changes) == 1
    assert readings == [MACHINE, MACHINE]


def test_a_listener_may_ask_for_the_next_reading_soon(hardware: Hardware, watch: HardwareWatch) -> None:
    def ask() -> None:
        if hardware.reads < 3:
            watch.request_scan_within(1.0)
            watch.request_scan_within(0.01)

    watch.on_reading(ask)
    watch.start()
    eventually(lambda: hardware.reads == 3)
    assert not eventually_more(hardware), "an interval of 0 reads no more by itself"


def eventually_more(hardware: Hardware) -> bool:
    time.sleep(0.1)
    return hardware.reads > 3
