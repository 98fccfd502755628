"""The work queue: with a fake clock for what is due when, with threads for who may work on what."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from dra_driver.kube.backoff import TokenBucket
from dra_driver.kube.workqueue import Workers, WorkQueue
from dra_driver.observability.logs import current_operation


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def items(clock: Clock) -> WorkQueue[str]:
    return WorkQueue("test", base_delay=1, max_delay=8, rate=1000, burst=1000, clock=clock)


def due(items: WorkQueue[str]) -> list[str]:
    found = []
    while (key := items.get(timeout=0)) is not None:
        found.append(key)
        items.done(key)
    return found


def test_keys_come_in_order_and_once(items: WorkQueue[str]) -> None:
    for key in ("a", "b", "a", "c", "b"):
        items.add(key)
    assert len(items) == 3
    assert due(items) == ["a", "b", "c"]


def test_key_added_while_worked_on_comes_again_after_done_and_not_before(items: WorkQueue[str]) -> None:
    items.add("a")
    assert items.get(timeout=0) == "a"
    items.add("a")
    items.add("a")
    assert items.get(timeout=0) is None
    items.done("a")
    assert due(items) == ["a"]


def test_shortest_delay_counts(items: WorkQueue[str], clock: Clock) -> None:
    items.add_after("a", 10)
    items.add_after("a", 3)
    items.add_after("a", 7)
    items.add_after("b", 5)
    items.add_after("now", 0)
    assert due(items) == ["now"]
    clock.now += 3
    assert due(items) == ["a"]
    clock.now += 2
    assert due(items) == ["b"]
    clock.now += 100
    assert due(items) == []


def test_failures_double_the_delay_until_forgotten(items: WorkQueue[str], clock: Clock) -> None:
    for delay in (1, 2, 4, 8, 8):
        items.add_rate_limited("a")
        clock.now += delay - 0.5
        assert due(items) == []
        clock.now += 0.5
        assert due(items) == ["a"]
    assert items.failures("a") == 5
    items.forget("a")
    items.add_rate_limited("a")
    clock.now += 1
    assert due(items) == ["a"]
    assert items.retries_total == 6


def test_overall_rate_bounds_failures_of_different_keys(clock: Clock) -> None:
    items: WorkQueue[str] = WorkQueue("test", base_delay=0.001, rate=2, burst=2, clock=clock)
    for number in range(6):
        items.add_rate_limited(f"k{number}")
    clock.now += 0.01
    assert len(due(items)) == 2
    clock.now += 1
    assert len(due(items)) == 2
    clock.now += 1
    assert len(due(items)) == 2


def test_shut_down_hands_out_what_is_ready_and_drops_what_is_delayed(items: WorkQueue[str], clock: Clock) -> None:
    items.add("ready")
    items.add_after("later", 1)
    items.shut_down()
    items.add("refused")
    items.add_after("refused", 1)
    clock.now += 10
    assert due(items) == ["ready"]
    assert items.get() is None
    assert items.join(timeout=1)


def test_join_waits_for_work_in_progress(items: WorkQueue[str]) -> None:
    items.add("a")
    assert items.get(timeout=0) == "a"
    assert not items.join(timeout=0.01)
    items.done("a")
    assert items.join(timeout=1)


def test_key_reaches_a_worker_while_somebody_waits_in_join() -> None:
    items: WorkQueue[str] = WorkQueue("test")
    items.add("a")
    assert items.get(timeout=0) == "a"
    joining = threading.Event()

    def join() -> None:
        joining.set()
        items.join(timeout=5)

    joiner = threading.Thread(target=join)
    joiner.start()
    assert joining.wait(5)
    time.sleep(0.05)  # it now waits ahead of the worker
    taken: list[str | None] = []
    worker = threading.Thread(target=lambda: taken.append(items.get()))
    worker.start()
    time.sleep(0.05)
    items.add("b")
    worker.join(1)
    assert taken == ["b"]
    items.done("a")
    items.done("b")
    joiner.join(5)
    items.shut_down()


def test_workers_never_share_a_key_and_finish_what_is_ready_on_stop() -> None:
    items: WorkQueue[str] = WorkQueue("test")
    active: set[str] = set()
    lock = threading.Lock()
    clashes: list[str] = []
    counts: dict[str, int] = {}

    def handle(key: str) -> None:
        with lock:
            if key in active:
                clashes.append(key)
            active.add(key)
        threading.Event().wait(0.001)
        with lock:
            active.discard(key)
            counts[key] = counts.get(key, 0) + 1

    workers = Workers(items, handle, count=4, name="worker")
    workers.start()
    assert {t.name for t in threading.enumerate()} >= {"worker-0", "worker-1", "worker-2", "worker-3"}
    for _ in range(20):
        for key in ("a", "b", "c"):
            items.add(key)
        threading.Event().wait(0.0005)
    workers.stop()
    assert clashes == []
    assert all(1 <= counts[key] <= 20 for key in ("a", "b", "c"))
    assert not any(t.name.startswith("worker-") for t in threading.enumerate())


def test_worker_tries_again_after_an_error_and_after_a_wanted_delay(caplog: pytest.LogCaptureFixture) -> None:
    items: WorkQueue[str] = WorkQueue("test", base_delay=0.001)
    results: list[float | Exception | None] = [RuntimeError("first"), 0.001, None]
    operations: list[str] = []
    finished = threading.Event()

    def handle(_key: str) -> float | None:
        operations.append(current_operation())
        result = results.pop(0)
        if not results:
            finished.set()
        if isinstance(result, Exception):
            raise result
        return result

    workers = Workers(items, handle, count=1, name="worker")
    with caplog.at_level(logging.ERROR):
        workers.start()
        items.add("a")
        assert finished.wait(5)
        workers.stop()
    assert [record.getMessage() for record in caplog.records] == ["work on a failed"]
    assert len(set(operations)) == 3
    assert all(operations)
    assert items.failures("a") == 0


def test_token_bucket_gives_a_burst_then_a_rate(clock: Clock) -> None:
    bucket = TokenBucket(2, 3, clock=clock)
    assert [bucket.reserve() for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    clock.now += 10
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert bucket.try_take()
