"""Flights land exactly once and leave no lock behind, whatever happens between their waits."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dra_driver.errors import HardwareError, InternalError, StateError
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.prepare.flight import Flight, Flights
from kubelet_plugin.prepare.locks import Held, NamedLocks, Then
from kubelet_plugin.prepare.pilot import ClaimFlight, FlightWork, Outcome, Pilot
from kubelet_plugin.prepare.workers import Workers
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result

Landed = list[tuple[ClaimFlight, Outcome]]


def flight(uid: str = "u1", after: ClaimFlight | None = None) -> ClaimFlight:
    return Flight(Operation.PREPARE, ref(uid), after)


def takes(*steps: Collection[str]) -> Callable[[ClaimFlight], FlightWork]:
    """Work that takes one set of locks within the other."""

    def work(flight: ClaimFlight, left: tuple[Collection[str], ...] = steps) -> FlightWork:
        if left:
            with (yield left[0]):
                yield from work(flight, left[1:])
        return ()

    return work


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class HandsOverAtOnce(NamedLocks):
    """Each lock comes free while whoever has asked for it is still on its way out."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.landed: Landed = []

    def take(self, names: Iterable[str], then: Then, waiting: Callable[[str], None] = lambda name: None) -> Held | None:
        then(Held(lambda: None))
        eventually(lambda: self.landed, timeout=5)
        return None


def test_work_goes_on_while_the_thread_that_asked_is_still_there(tmp_path: Path) -> None:
    locks = HandsOverAtOnce(tmp_path / "locks")
    pilot = Pilot(locks, lambda *landed: locks.landed.append(landed))
    pilot.fly(flight(), takes(["a"]))
    eventually(lambda: locks.landed)
    assert locks.landed[0][1] == ()
    pilot.stop()


def test_what_is_not_the_works_fault_ends_the_work_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log keeps the trace, and with it the work."""
    locks, landed = NamedLocks(tmp_path / "locks"), list[tuple[ClaimFlight, Outcome]]()
    pilot = Pilot(locks, lambda *each: landed.append(each))

    def work(_flight: ClaimFlight) -> FlightWork:
        with (yield ["a"]), (yield [5]):  # type: ignore[list-item]
            pass
        return ()

    pilot.fly(flight(), work)
    eventually(lambda: landed)
    assert isinstance(landed[0][1], InternalError)
    assert caplog.records
    with locks.try_hold("a") as free:
        assert free
    pilot.stop()


def test_without_a_thread_a_flight_lands_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each repetition of the call would join a flight that nobody flies."""
    flights: Flights[Outcome] = Flights()
    locks, landed = NamedLocks(tmp_path / "locks"), list[tuple[ClaimFlight, Outcome]]()

    def land(each: ClaimFlight, outcome: Outcome) -> None:
        flights.land(each, outcome)
        landed.append((each, outcome))

    pilot = Pilot(locks, land)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        for each in flights.join(Operation.PREPARE, [ref("u1"), ref("u2")])[1]:
            pilot.fly(each, takes(["a"]))
    assert [str(outcome) for _flight, outcome in landed] == [
        "no thread for it: can't start new thread (raise the pids limit of the container)"
    ] * 2
    assert flights.under_way() == []
    pilot.fly(flight("u3"), takes(["a"]))
    eventually(lambda: len(landed) == 3)
    assert landed[2][1] == ()
    pilot.stop()


def test_workers_without_another_thread_do_it_with_those_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, done, gate = Workers(4, "test"), list[str](), threading.Event()
    dropped: list[StateError] = []
    workers.submit(lambda: done.append(str(gate.wait(5))), dropped.append)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        workers.submit(lambda: done.append("later"), dropped.append)
    assert (done, dropped) == ([], [])
    gate.set()
    eventually(lambda: done == ["True", "later"])
    workers.stop()


def test_a_stop_takes_no_longer_for_many_that_wait(node: TestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubelet_plugin.prepare.pilot._MAX_THREADS", 1)
    engine = node.engine()
    with engine._locks.hold([f"device-{node.machine.gpus[1].uuid}"]):
        for number in range(80):
            node.claims.add(claim(f"u{number}", result("gpu-1")))
        waiting = [ref(f"u{number}") for number in range(80)]
        engine.prepare(waiting, timeout=0)
        eventually(lambda: sum(bool(each.waits_for) for each in engine._flights.under_way()) == 80)
        stopping = threading.Thread(target=engine.stop, args=(0.05,))
        stopping.start()
        stopping.join(5)
        assert not stopping.is_alive()
    assert engine._flights.under_way() == []


class Planned:
    """Random work: locks within locks, errors at any place."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._guard = threading.Lock()
        self._inside: set[str] = set()
        self.twice: list[str] = []

    def work(self, _flight: ClaimFlight) -> FlightWork:
        with (yield (f"claim-{self._random.randrange(12)}",)):
            self._maybe_break(0.05)
            names = tuple(f"device-{number}" for number in self._random.sample(range(4), self._random.randrange(4)))
            with (yield names), self._in(names):
                self._maybe_break(0.1)
        self._maybe_break(0.05)
        return ()

    def _maybe_break(self, chance: float) -> None:
        what = self._random.random()
        if what < chance:
            raise HardwareError("expected") if what < chance / 2 else ZeroDivisionError("not expected")

    @contextmanager
    def _in(self, names: tuple[str, ...]) -> Iterator[None]:
        with self._guard:
            self.twice += [name for name in names if name in self._inside]
            self._inside.update(names)
        try:
            yield
        finally:
            with self._guard:
                self._inside.difference_update(names)


@pytest.fixture
def threads_that_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_that_take_turns_often")
@pytest.mark.parametrize("stops_at", [None, 0.2, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_every_flight_lands_once_and_no_lock_stays(tmp_path: Path, seed: int, stops_at: float | None) -> None:
    count, before = 1000, set(threading.enumerate())
    locks, flights = NamedLocks(tmp_path / "locks"), Flights[Outcome]()
    other = NamedLocks(tmp_path / "locks")
    landed: Counter[ClaimFlight] = Counter()
    outcomes: list[Outcome] = []
    guard = threading.Lock()

    def land(each: ClaimFlight, outcome: Outcome) -> None:
        flights.land(each, outcome)
        with guard:
            landed[each] += 1
            outcomes.append(outcome)

    pilot, planned = Pilot(locks, land), Planned(seed)
    flown: list[ClaimFlight] = []
    for number in range(count):
        if stops_at is not None and number == int(stops_at * count):
            locks.stop()
            pilot.stop()
        operation = Operation.PREPARE if number % 3 else Operation.UNPREPARE
        for each in flights.join(operation, [ref(f"u{number % 50}")])[1]:
            flown.append(each)
            pilot.fly(each, planned.work)
        if number % 100 == 0:
            with other.hold([f"device-{number % 4}"]):
                """As another process does now and then."""
    eventually(lambda: len(landed) == len(flown), timeout=20)
    assert set(landed.values()) == {1}
    assert flights.under_way() == []
    assert planned.twice == []
    eventually(lambda: not locks._queues and locks._poller is None, timeout=5)
    expected = (tuple, HardwareError, InternalError, StateError)
    assert [each for each in outcomes if not isinstance(each, expected)] == []
    pilot.stop()
    eventually(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("claim-")])
