"""Events ask for readings: at once, joined in bursts, not while the hardware cannot be read, ended promptly."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.hardware.nvml import GpuEvent, GpuEvents, MigControl, NvmlHardware
from dra_driver.simulation.hardware import create_state, install, uninstall
from kubelet_plugin.hardware.events import HardwareEvents
from kubelet_plugin.hardware.watch import HardwareState, HardwareWatch
from tests.kubelet_plugin.fakes import eventually


def machine(*uuids: str) -> Machine:
    return Machine(
        "580.105.08",
        13000,
        tuple(
            Gpu(index, index, uuid, "GPU", "Nvidia", "Hopper", "9.0", f"0000:0{index}:00.0")
            for index, uuid in enumerate(uuids)
        ),
    )


class Watch:
    def __init__(self) -> None:
        self.state = HardwareState(True, machine("GPU-a"))
        self.scans = 0

    def request_scan(self) -> None:
        self.scans += 1


class Source:
    """Events from a queue; an exception in it is raised."""

    def __init__(self) -> None:
        self.events: queue.Queue[GpuEvent | Exception] = queue.Queue()
        self.reporting = 1
        self.opened = 0
        self.closed = 0
        self.refusal: Exception | None = None

    def open(self) -> int:
        self.opened += 1
        if self.refusal is not None:
            raise self.refusal
        return self.reporting

    def wait(self, seconds: float) -> GpuEvent | None:
        try:
            event = self.events.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def events(watch: Watch, source: Source) -> Iterator[HardwareEvents]:
    events = HardwareEvents(watch, source, settle=0.2, retry=0.01)
    yield events
    events.stop()
    assert not [each for each in threading.enumerate() if each.name == "hardware-events"]


def test_an_event_asks_for_a_reading_and_a_burst_for_two(watch: Watch, source: Source, events: HardwareEvents) -> None:
    """Changes of MIG after they have settled, an error at once, and what follows together once it is over."""
    events.start()
    source.events.put(GpuEvent("GPU-a"))
    eventually(lambda: watch.scans == 1)
    for _ in range(20):
        source.events.put(GpuEvent("GPU-a", 31))
    eventually(lambda: watch.scans == 2)
    eventually(source.events.empty)
    time.sleep(0.5)
    assert watch.scans == 2


def test_nothing_is_waited_for_while_the_hardware_cannot_be_read(
    watch: Watch, source: Source, events: HardwareEvents
) -> None:
    """So that the driver can be begun with from nothing."""
    events.start()
    eventually(lambda: source.opened == 1)
    watch.state = HardwareState(True, machine("GPU-a"), "driver/library version mismatch", tentative=True)
    eventually(lambda: source.closed == 1)
    time.sleep(0.3)
    assert source.opened == 1
    watch.state = HardwareState(True, machine("GPU-a"))
    eventually(lambda: source.opened == 2)


def test_another_set_of_gpus_is_registered_anew(watch: Watch, source: Source, events: HardwareEvents) -> None:
    events.start()
    eventually(lambda: source.opened == 1)
    watch.state = HardwareState(True, machine("GPU-a", "GPU-b"))
    eventually(lambda: (source.opened, source.closed) == (2, 1))


@pytest.mark.parametrize("error", [HardwareError("lost"), RuntimeError("surprise")])
def test_a_wait_that_fails_is_begun_again(
    watch: Watch, source: Source, events: HardwareEvents, error: Exception
) -> None:
    events.start()
    eventually(lambda: source.opened == 1)
    source.events.put(error)
    eventually(lambda: source.opened == 2 and source.closed == 1)
    assert watch.scans == (1 if isinstance(error, HardwareError) else 0)


def test_a_driver_without_events_is_asked_again_and_logged_once(
    source: Source, watch: Watch, events: HardwareEvents, caplog: pytest.LogCaptureFixture
) -> None:
    source.refusal = HardwareError("nvmlEventSetCreate failed")
    with caplog.at_level("INFO"):
        events.start()
        eventually(lambda: source.opened > 3)
    assert caplog.text.count("changes are found by reading") == 1
    assert watch.scans == 0


def test_gpus_that_report_nothing(source: Source, events: HardwareEvents) -> None:
    source.reporting = 0
    events.start()
    eventually(lambda: source.opened == 1)
    begun = time.monotonic()
    events.stop()
    assert time.monotonic() - begun < 1


def test_a_foreign_change_on_simulated_hardware_is_read_at_once(tmp_path: Path) -> None:
    """With readings switched off but the first: only the event can tell."""
    state = create_state("h100-nvl", tmp_path / "gpus.json")
    install(tmp_path / "gpus.json")
    watch = HardwareWatch(NvmlHardware(), 0)
    events = HardwareEvents(watch, GpuEvents())
    watch.start()
    events.start()
    try:
        assert watch.wait_for_first_reading(10)
        time.sleep(0.3)  # registered by now
        MigControl().set_mode(state.gpus[1].uuid, True)
        begun = time.monotonic()

        def enabled() -> list[bool]:
            return [gpu.mig is not None and gpu.mig.enabled for gpu in watch.machine().gpus]

        eventually(lambda: enabled() == [False, True], timeout=5)
        assert time.monotonic() - begun < 2
    finally:
        events.stop()
        watch.stop()
        uninstall()
