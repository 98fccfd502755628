"""Who waits for whom: repeated calls join, the opposite operation queues up, a deadline does not end the work."""

from __future__ import annotations

import threading

import pytest

from dra_driver.errors import DeviceInUse, DriverError, PrepareTimeout, StateError
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.flight import Flights
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result


def test_flights_join_and_queue() -> None:
    flights: Flights[str] = Flights()
    first, new = flights.join(Operation.PREPARE, [ref("a"), ref("b"), ref("a")])
    assert new == [first["a"], first["b"]]
    again, new = flights.join(Operation.PREPARE, [ref("a")])
    assert (again["a"], new) == (first["a"], [])
    undo, new = flights.join(Operation.UNPREPARE, [ref("a")])
    assert new == [undo["a"]]
    assert undo["a"].after is first["a"]
    flights.land(first["a"], "done")
    assert first["a"].wait(0)
    assert first["a"].outcome == "done"
    assert flights.join(Operation.UNPREPARE, [ref("a")])[0]["a"] is undo["a"]
    flights.land(undo["a"], "undone")
    assert flights.join(Operation.PREPARE, [ref("a")])[1]
    assert {flight.ref.uid for flight in flights.under_way()} == {"a", "b"}


@pytest.fixture
def gated(node: TestNode) -> threading.Event:
    """The API server answers only once the event is set."""
    node.claims.gate = threading.Event()
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-2")), claim("u3", result("gpu-1")))
    return node.claims.gate


def test_a_deadline_does_not_end_the_work_and_a_retry_joins_it(
    node: TestNode, engine: PrepareEngine, gated: threading.Event
) -> None:
    answer = engine.prepare([ref("u1")], timeout=0.02)["u1"]
    assert isinstance(answer, PrepareTimeout)
    assert answer.retryable
    assert "reading the claim from the API server" in str(answer)
    assert "default/u1:u1" in str(answer)
    retry = threading.Thread(target=gated.set)
    retry.start()
    assert not isinstance(engine.prepare([ref("u1")], timeout=10)["u1"], DriverError)
    retry.join()
    assert node.claims.reads == 1


def test_many_callers_one_operation(node: TestNode, engine: PrepareEngine, gated: threading.Event) -> None:
    answers: list[object] = []
    callers = [
        threading.Thread(target=lambda: answers.append(engine.prepare([ref("u1")], timeout=10)["u1"])) for _ in range(6)
    ]
    for caller in callers:
        caller.start()
    while node.claims.reads == 0:
        gated.wait(0.001)
    gated.set()
    for caller in callers:
        caller.join(10)
    assert len(set(map(str, answers))) == 1
    assert node.cdi.claim_uids() == ("u1",)


def test_unprepare_waits_for_the_prepare_under_way(
    node: TestNode, engine: PrepareEngine, gated: threading.Event
) -> None:
    assert isinstance(engine.prepare([ref("u1")], timeout=0)["u1"], PrepareTimeout)
    late = engine.unprepare([ref("u1")], timeout=0.02)["u1"]
    assert isinstance(late, PrepareTimeout)
    assert "waiting for the prepare of the same claim" in str(late)
    gated.set()
    assert engine.unprepare([ref("u1")], timeout=10) == {"u1": None}
    assert not engine.entries()
    assert node.left_overs() == []


def test_prepare_after_a_queued_unprepare_is_a_new_one(
    node: TestNode, engine: PrepareEngine, gated: threading.Event
) -> None:
    engine.prepare([ref("u1")], timeout=0)
    engine.unprepare([ref("u1")], timeout=0)
    engine.prepare([ref("u1")], timeout=0)
    gated.set()
    assert not isinstance(engine.prepare([ref("u1")], timeout=10)["u1"], DriverError)
    assert node.cdi.claim_uids() == ("u1",)


def test_a_slow_claim_does_not_keep_other_gpus_waiting(
    node: TestNode, engine: PrepareEngine, gated: threading.Event
) -> None:
    with engine._locks.hold(["device-GPU-1"]):
        gated.set()
        stuck = engine.prepare([ref("u1")], timeout=0.5)["u1"]
        assert isinstance(stuck, PrepareTimeout)
        assert "waiting for lock device-GPU-1" in str(stuck)
        assert not isinstance(engine.prepare([ref("u2")], timeout=10)["u2"], DriverError)
    assert not isinstance(engine.prepare([ref("u1")], timeout=10)["u1"], DriverError)


def test_parallel_claims_for_one_gpu_have_one_winner(
    node: TestNode, engine: PrepareEngine, gated: threading.Event
) -> None:
    gated.set()
    answers: dict[str, object] = {}

    def call(uid: str) -> None:
        answers[uid] = engine.prepare([ref(uid)], timeout=10)[uid]

    callers = [threading.Thread(target=call, args=(uid,)) for uid in ("u1", "u3")]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    assert sorted(isinstance(answer, DeviceInUse) for answer in answers.values()) == [False, True]
    assert len(node.cdi.claim_uids()) == 1


def test_work_that_fails_after_its_deadline_is_told(
    node: TestNode, engine: PrepareEngine, gated: threading.Event
) -> None:
    node.claims.by_name.clear()
    assert isinstance(engine.prepare([ref("u1")], timeout=0)["u1"], PrepareTimeout)
    gated.set()
    assert node.listener.told.wait(5)
    (late,) = node.listener.late
    assert late[0] is Operation.PREPARE
    assert late[2].reason == "ClaimNotFound"


def test_stop_answers_those_who_wait(node: TestNode, engine: PrepareEngine, gated: threading.Event) -> None:
    answers: list[object] = []
    with engine._locks.hold(["device-GPU-1"]):
        gated.set()
        caller = threading.Thread(target=lambda: answers.append(engine.prepare([ref("u1")], timeout=30)["u1"]))
        caller.start()
        while not engine._flights.under_way():
            gated.wait(0.001)
        engine.stop(timeout=0.05)
        caller.join(5)
    assert isinstance(answers[0], StateError)


def test_an_unexpected_error_is_an_answer_too(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.error = RuntimeError("boom")
    answers = engine.prepare([ref("u1"), ref("u2")], timeout=10)
    assert all("unexpected RuntimeError: boom" in str(answer) for answer in answers.values())
