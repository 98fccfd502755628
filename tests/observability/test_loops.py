"""Loops go on whatever a round does, and tell when they stand still."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dra_driver.kube.backoff import Backoff
from dra_driver.observability.listeners import Listeners
from dra_driver.observability.loops import Loop, standing_still
from dra_driver.observability.metrics import LoopCollector
from tests.kubelet_plugin.fakes import eventually

Maker = Callable[..., Loop]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Maker]:
    """``make(round, ...)`` is a loop that is not started yet; it is stopped afterwards."""
    loops: list[Loop] = []

    def make(do_round: Callable[[], float | None], **options: Any) -> Loop:
        loop = Loop(
            "rounds",
            do_round,
            limit=options.pop("limit", 60.0),
            doing="going round",
            retry=Backoff(0.01, 0.01),
            clock=clock,
            wall_clock=lambda: clock.now + 1e9,
            **options,
        )
        loops.append(loop)
        return loop

    yield make
    for loop in loops:
        loop.stop(5)


def test_a_round_that_raises_is_logged_counted_and_followed_by_the_next(
    make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[int] = []

    def do_round() -> float | None:
        rounds.append(1)
        if len(rounds) < 3:
            raise KeyError("surprise")
        return None

    loop = make(do_round)
    loop.start()
    eventually(lambda: len(rounds) == 3)
    assert loop.errors == 2
    assert "going round broke, trying again" in caplog.text
    assert "KeyError: 'surprise'" in caplog.text
    assert [record.loop for record in caplog.records if hasattr(record, "loop")] == ["rounds", "rounds"]


def test_what_is_expected_is_told_in_one_line(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[int] = []

    def do_round() -> float | None:
        rounds.append(1)
        if len(rounds) == 1:
            raise ConnectionError("nobody there")
        return None

    with caplog.at_level(logging.WARNING):
        make(do_round, expected=(ConnectionError,)).start()
        eventually(lambda: len(rounds) == 2)
    assert "going round failed, trying again: nobody there" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_loop_that_waits_for_work_is_woken_and_never_late(make: Maker, clock: Clock) -> None:
    rounds: list[int] = []
    loop = make(lambda: rounds.append(1))
    loop.start()
    eventually(lambda: loop.last_round and len(rounds) == 1)
    clock.now += 1e6
    assert loop.overdue() == 0
    assert standing_still([loop]) is None
    loop.wake()
    eventually(lambda: len(rounds) == 2)


def test_a_round_that_hangs_is_named_with_its_time(make: Maker, clock: Clock) -> None:
    inside, release = threading.Event(), threading.Event()

    def do_round() -> float | None:
        inside.set()
        release.wait(10)
        return None

    loop = make(do_round)
    assert standing_still([loop]) is None, "not started yet"
    loop.start()
    assert inside.wait(5)
    clock.now += 60
    assert standing_still([loop]) is None
    clock.now += 1
    assert standing_still([loop]) == "rounds stands still: going round takes 61 s already"
    assert loop.overdue() == 1
    release.set()
    eventually(lambda: standing_still([loop]) is None)


def test_a_long_round_that_shows_that_it_goes_on_does_not_stand_still(make: Maker, clock: Clock) -> None:
    inside, go_on, beaten, release = (threading.Event() for _ in range(4))

    def do_round() -> float | None:
        inside.set()
        go_on.wait(10)
        loop.beat()
        beaten.set()
        release.wait(10)
        return None

    loop = make(do_round)
    loop.start()
    assert inside.wait(5)
    clock.now += 50
    go_on.set()
    assert beaten.wait(5)
    assert loop.last_round == clock.now + 1e9
    clock.now += 50
    assert standing_still([loop]) is None
    release.set()


def test_waiting_for_work_within_a_round_is_not_standing_still(make: Maker, clock: Clock) -> None:
    inside, release = threading.Event(), threading.Event()

    def do_round() -> float | None:
        with loop.idle():
            inside.set()
            release.wait(10)
        return None

    loop = make(do_round)
    loop.start()
    assert inside.wait(5)
    clock.now += 1e6
    assert standing_still([loop]) is None
    release.set()


def test_a_round_that_does_not_come_when_it_is_due_is_named(make: Maker, clock: Clock) -> None:
    loop = make(lambda: 1000.0)
    loop.start()
    eventually(lambda: loop.last_round)
    eventually(lambda: loop.overdue() == 0)
    clock.now += 1070
    assert standing_still([loop]) == "rounds stands still: it waits for 1070 s, longer than it should"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_gone_is_named(make: Maker, clock: Clock) -> None:
    class PullingThePlug(BaseException):
        """Not an Exception: nothing holds it back."""

    def do_round() -> float | None:
        raise PullingThePlug

    loop = make(do_round)
    loop.start()
    eventually(lambda: standing_still([loop]))
    clock.now += 5
    assert standing_still([loop]) == "rounds ended by itself 5 s ago; the log says why"


def test_a_stop_lets_a_loop_finish_what_waits(make: Maker) -> None:
    waiting = ["a", "b", "c"]
    done: list[str] = []

    def do_round() -> float | None:
        if not loop.stopping or not waiting:
            return None
        done.append(waiting.pop(0))
        return 0.0

    loop = make(do_round, finish=True)
    loop.start()
    assert loop.stop(5)
    assert done == ["a", "b", "c"]
    assert standing_still([loop]) is None, "it ended as asked"


def test_metrics_have_the_loops_that_were_started(make: Maker, clock: Clock) -> None:
    def do_round() -> float | None:
        raise KeyError("surprise")

    loop = make(do_round)
    registry = CollectorRegistry()
    registry.register(LoopCollector([loop]))
    labels = {"loop": "rounds"}
    assert registry.get_sample_value("gpu_dra_loop_overdue_seconds", labels) is None
    loop.start()
    eventually(lambda: (registry.get_sample_value("gpu_dra_loop_errors_total", labels) or 0) >= 1)
    eventually(lambda: registry.get_sample_value("gpu_dra_loop_last_round_timestamp_seconds", labels) == 1e9 + 100)
    assert registry.get_sample_value("gpu_dra_loop_overdue_seconds", labels) == 0


def test_a_listener_that_raises_keeps_no_other_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[int] = []
    told: list[str] = []
    listeners: Listeners[[str]] = Listeners("it rains", lambda: errors.append(1))

    def breaks(_what: str) -> None:
        raise KeyError("surprise")

    listeners.add(breaks)
    listeners.add(told.append)
    listeners.tell("cats")
    assert told == ["cats"]
    assert errors == [1]
    assert "it rains: a listener failed" in caplog.text
    assert "KeyError: 'surprise'" in caplog.text
