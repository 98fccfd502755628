"""Locks between threads, and between open files as between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import pytest

from dra_driver.errors import StateError
from kubelet_plugin.prepare.locks import Held, LockBusy, NamedLocks, byte_of
from tests.kubelet_plugin.fakes import eventually

HOLDER = """
import sys
from pathlib import Path
from kubelet_plugin.prepare.locks import NamedLocks
with NamedLocks(Path(sys.argv[1])).hold([sys.argv[2]]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(file: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(file), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def test_one_at_a_time(file: Path) -> None:
    locks = NamedLocks(file)
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
    assert not locks._queues


def test_a_wait_with_an_end(file: Path) -> None:
    locks = NamedLocks(file)
    waited_for: list[str] = []

    def try_it() -> float:
        began = time.monotonic()
        with (
            pytest.raises(LockBusy, match="lock b is held"),
            locks.hold(["a", "b"], waited_for.append, until=began + 0.1),
        ):
            pytest.fail("it was held")
        return time.monotonic() - began

    with held_by_another_process(file, "b"):
        assert 0.1 <= try_it() < 1
    with locks.hold(["b"]), futures.ThreadPoolExecutor(1) as pool:
        assert 0.1 <= pool.submit(try_it).result() < 1
    assert waited_for == ["b", "b"]
    assert not locks._queues
    with locks.hold(["a", "b"], until=0.0):
        """What is free needs no time."""


def test_different_names_do_not_wait(file: Path) -> None:
    locks = NamedLocks(file)
    with locks.hold(["a"]), locks.try_hold("b") as free:
        assert free


def test_overlapping_sets_in_any_order_do_not_deadlock(file: Path) -> None:
    locks = NamedLocks(file)

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


def test_waiting_for_another_process_is_told_once(file: Path) -> None:
    locks = NamedLocks(file)
    told: list[str] = []
    waiting, done = threading.Event(), threading.Event()

    def on_wait(name: str) -> None:
        told.append(name)
        waiting.set()

    def work() -> None:
        with locks.hold(["a"], on_wait):
            done.set()

    with held_by_another_process(file, "a"):
        thread = threading.Thread(target=work)
        thread.start()
        assert waiting.wait(5)
        assert not done.is_set()
    assert done.wait(5)
    thread.join(5)
    assert told == ["a"]


def test_waiting_is_told_before_the_answer(file: Path) -> None:
    """Else what is said of the work later on is that it waits, though it goes on."""
    locks = NamedLocks(file)
    told: list[str] = []
    held = locks.take(["a"], lambda _answer: None)
    assert held is not None
    release = threading.Thread(target=held.release)

    def waiting(name: str) -> None:
        release.start()
        release.join(0.1)
        told.append(name)

    assert locks.take(["a"], lambda _answer: told.append("then"), waiting) is None
    release.join(5)
    assert told == ["a", "then"]


def test_try_hold(file: Path) -> None:
    locks = NamedLocks(file)
    with held_by_another_process(file, "a"), locks.try_hold("a") as ours:
        assert not ours
    with locks.try_hold("a") as ours:
        assert ours
        with locks.try_hold("a") as again:
            assert not again
    with locks.try_hold("a") as ours:
        assert ours


def test_locks_of_a_killed_process_are_free(file: Path) -> None:
    locks = NamedLocks(file)
    with held_by_another_process(file, "a") as process:
        process.kill()
        process.wait(5)
        with locks.try_hold("a") as ours:
            assert ours


def test_two_owners_of_one_file_in_one_process_exclude_each_other(file: Path) -> None:
    with NamedLocks(file).hold(["a", "b"]), NamedLocks(file).try_hold("b") as ours:
        assert not ours


def test_stop_ends_the_waiting(file: Path) -> None:
    locks = NamedLocks(file)
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


def test_stop_lets_nobody_in(file: Path) -> None:
    """Whoever leaves its place in a queue at the stop is followed by one that waits too."""
    locks = NamedLocks(file)
    answers: list[Held | StateError] = []
    with locks.hold(["b"]):
        for number in range(8):
            assert locks.take([f"a{number}", "b"], answers.append) is None
            assert locks.take([f"a{number}"], answers.append) is None
        locks.stop()
    assert [type(answer) for answer in answers] == [StateError] * 16
    assert not locks._queues


def test_many_that_let_go_at_once(file: Path) -> None:
    """One after the other, not one within the other: a thread has only so deep a stack."""
    locks = NamedLocks(file)
    let_in = 0

    def let_go(answer: Held | StateError) -> None:
        nonlocal let_in
        assert isinstance(answer, Held)
        let_in += 1
        answer.release()

    with locks.hold(["a"]):
        for _ in range(500):
            assert locks.take(["a"], let_go) is None
    assert let_in == 500
    assert not locks._queues


def test_one_that_breaks_at_its_answer_breaks_nobody_else(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    locks = NamedLocks(file)
    answers: list[Held | StateError] = []

    def broken(_answer: Held | StateError) -> None:
        raise ZeroDivisionError

    with locks.hold(["a", "b"]):
        assert locks.take(["a"], broken) is None
        assert locks.take(["b"], answers.append) is None
    assert [type(answer) for answer in answers] == [Held]
    assert "handing over locks a broke" in caplog.text


def test_a_wait_that_ends_as_it_is_let_in_keeps_no_lock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = NamedLocks(file)
    failed: list[BaseException] = []
    take_bytes = locks._take_bytes

    def work() -> None:
        try:
            with locks.hold(["a"], until=time.monotonic() + 0.1):
                pass
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    def take_late(request: object) -> bool:
        taken = take_bytes(request)  # type: ignore[arg-type]
        thread.join(5)
        return taken

    held = locks.take(["a"], lambda _answer: None)
    assert held is not None
    monkeypatch.setattr(locks, "_take_bytes", take_late)
    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: len(locks._queues["a"]) == 2)
    held.release()
    assert [type(error) for error in failed] == [LockBusy]
    assert not locks._queues


def test_a_wait_for_another_process_without_a_thread_for_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a limit of processes: the next one waits all the same."""
    locks = NamedLocks(file)

    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with held_by_another_process(file, "a"):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(StateError, match="can't start new thread"), locks.hold(["a"]):
                pass
        assert not locks._queues
        with pytest.raises(LockBusy), locks.hold(["a"], until=time.monotonic() + 0.05):
            pass
    eventually(lambda: locks._poller is None)
    assert not locks._queues


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    locks = NamedLocks(tmp_path / "nowhere" / "locks")
    with pytest.raises(StateError, match="cannot lock"), locks.hold(["a"]):
        pass
    assert not locks._queues


def test_a_thread_is_let_in_after_the_byte_is_free(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each hand-over between threads would ask the kernel again and again, as between processes."""
    locks = NamedLocks(file)
    waiting = threading.Event()
    pauses: list[float] = []
    monkeypatch.setattr("kubelet_plugin.prepare.locks.time.sleep", pauses.append)

    def work() -> None:
        with locks.hold(["a"], lambda _name: waiting.set()):
            pass

    thread = threading.Thread(target=work)
    close = os.close

    def close_late(descriptor: int) -> None:
        if thread.ident is None:
            thread.start()
            assert waiting.wait(5)
        close(descriptor)

    monkeypatch.setattr("kubelet_plugin.prepare.locks.os.close", close_late)
    with locks.hold(["a"]):
        pass
    thread.join(5)
    assert not thread.is_alive()
    assert pauses == []


def test_names_have_bytes_of_their_own() -> None:
    names = [f"{kind}-{number}" for kind in ("claim", "device") for number in range(5000)]
    offsets = {byte_of(name) for name in names}
    assert len(offsets) == len(names)
    assert max(offsets) < 2**62
