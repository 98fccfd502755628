"""Locks between threads, and between open files as between processes."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dra_driver.errors import StateError
from kubelet_plugin.locks import NamedLocks


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    """flock belongs to the open file, so another open file is as good as another process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_one_at_a_time(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path)
    inside, worst, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, worst
        for _ in range(20):
            with locks.hold(["b", "a", "b"]):
                with guard:
                    inside += 1
                    worst = max(worst, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert worst == 1
    assert not locks._mutexes
    assert locks.names() == ("a", "b")


def test_different_names_do_not_wait(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path)
    with locks.hold(["a"]), locks.try_hold("b") as free:
        assert free


def test_overlapping_sets_in_any_order_do_not_deadlock(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path)

    def work(names: list[str]) -> None:
        for _ in range(50):
            with locks.hold(names):
                pass

    threads = [threading.Thread(target=work, args=(names,)) for names in (["a", "b", "c"], ["c", "a"], ["b", "a"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_waiting_for_another_process_is_told_once(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path)
    told: list[str] = []
    waiting, done = threading.Event(), threading.Event()

    def on_wait(name: str) -> None:
        told.append(name)
        waiting.set()

    def work() -> None:
        with locks.hold(["a"], on_wait):
            done.set()

    with held_by_another_process(tmp_path / "a.lock"):
        thread = threading.Thread(target=work)
        thread.start()
        assert waiting.wait(5)
        assert not done.is_set()
    assert done.wait(5)
    thread.join(5)
    assert told == ["a"]


def test_try_hold(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path)
    with held_by_another_process(tmp_path / "a.lock"), locks.try_hold("a") as ours:
        assert not ours
    with locks.try_hold("a") as ours:
        assert ours
        with locks.try_hold("a") as again:
            assert not again
    with locks.try_hold("a") as ours:
        assert ours


def test_a_lock_whose_file_was_removed_is_taken_on_the_new_file(tmp_path: Path) -> None:
    locks, others = NamedLocks(tmp_path), NamedLocks(tmp_path)
    order: list[str] = []
    waiting = threading.Event()

    def work() -> None:
        with others.hold(["a"], lambda _name: waiting.set()):
            order.append("second")

    with locks.hold(["a"]):
        thread = threading.Thread(target=work)
        thread.start()
        assert waiting.wait(5)
        locks.forget("a")
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert locks.names() == ("a",)


def test_stop_ends_the_waiting(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path)
    failed = threading.Event()
    waiting = threading.Event()

    def work() -> None:
        try:
            with locks.hold(["a"], lambda _name: waiting.set()):
                pass
        except StateError:
            failed.set()

    with locks.hold(["a"]):
        thread = threading.Thread(target=work)
        thread.start()
        assert waiting.wait(5)
        locks.stop()
        assert failed.wait(5)
    thread.join(5)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path / "nowhere")
    with pytest.raises(StateError, match="cannot lock"), locks.hold(["a"]):
        pass
    assert not locks._mutexes
    for name in ("a/b", ".hidden"):
        with pytest.raises(StateError, match="cannot be the name"), locks.hold([name]):
            pass
