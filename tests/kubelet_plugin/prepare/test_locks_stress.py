"""Locks under random load: several owners of one file and several threads, with waits that end and a stop in between."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.errors import StateError
from kubelet_plugin.prepare.locks import Held, LockBusy, NamedLocks
from tests.kubelet_plugin.fakes import eventually

NAMES = ("a", "b", "c", "d")
THREADS, ROUNDS = 6, 60


class Inside:
    """Who has which name now, whoever gave it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken: set[str] = set()
        self.twice: list[str] = []

    def enter(self, names: tuple[str, ...]) -> None:
        with self._guard:
            self.twice += [name for name in names if name in self._taken]
            self._taken.update(names)

    def leave(self, names: tuple[str, ...]) -> None:
        with self._guard:
            self._taken.difference_update(names)


class Player:
    """Plays on one of the owners, and counts answers: each request of ``take`` has one."""

    def __init__(self, owners: list[NamedLocks], inside: Inside, seed: int) -> None:
        self._owners = owners
        self._inside = inside
        self._random = random.Random(seed)
        self._guard = threading.Lock()
        self.asked = 0
        self.answers: Counter[int] = Counter()
        self.strange: list[BaseException] = []

    def play(self) -> None:
        try:
            for _ in range(ROUNDS):
                self._random.choice((self._take, self._take, self._hold, self._try_hold))()
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.strange.append(error)

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self._random.sample(NAMES, self._random.randint(1, 3))))

    def _take(self) -> None:
        locks, names, number = self._random.choice(self._owners), self._names(), self.asked
        self.asked += 1

        def then(answer: Held | StateError) -> None:
            with self._guard:
                self.answers[number] += 1
            if isinstance(answer, Held):
                self._inside.enter(names)
                # As the pilot does: whoever lets go is another thread than the one that was let in.
                threading.Thread(target=self._let_go, args=(answer, names)).start()

        try:
            held = locks.take(names, then)
        except StateError as error:
            then(error)
            return
        if held is not None:
            then(held)

    def _let_go(self, held: Held, names: tuple[str, ...]) -> None:
        self._inside.leave(names)
        held.release()

    def _hold(self) -> None:
        locks, names = self._random.choice(self._owners), self._names()
        until = time.monotonic() + self._random.choice((0.0, 0.0005, 0.002, 5.0))
        try:
            with locks.hold(names, until=until):
                self._inside.enter(names)
                self._inside.leave(names)
        except LockBusy:
            assert time.monotonic() >= until
        except StateError as error:
            assert "stopping" in str(error)  # noqa: PT017

    def _try_hold(self) -> None:
        name = self._random.choice(NAMES)
        with self._random.choice(self._owners).try_hold(name) as ours:
            if ours:
                self._inside.enter((name,))
                self._inside.leave((name,))


@pytest.fixture(autouse=True)
def threads_that_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def descriptors(file: Path) -> int:
    """How often this process has ``file`` open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(link) == str(file)
        except FileNotFoundError:
            continue  # that of the listing itself
    return count


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_threads_do_one_is_in_and_each_is_answered_once(tmp_path: Path, seed: int, stops: bool) -> None:
    file = tmp_path / "locks"
    owners = [NamedLocks(file) for _ in range(2)]
    inside = Inside()
    before = set(threading.enumerate())
    players = [Player(owners, inside, 100 * seed + number) for number in range(THREADS)]
    threads = [threading.Thread(target=player.play) for player in players]
    for thread in threads:
        thread.start()
    if stops:
        half = THREADS * ROUNDS // 8
        eventually(lambda: sum(player.asked for player in players) >= half)
        for locks in owners:
            locks.stop()
    for thread in threads:
        thread.join(20)
    assert [error for player in players for error in player.strange] == []
    for player in players:
        eventually(lambda each=player: len(each.answers) == each.asked, timeout=5)  # type: ignore[misc]
    eventually(lambda: not set(threading.enumerate()) - before, timeout=5)
    assert inside.twice == []
    assert all(set(player.answers.values()) == {1} for player in players)
    assert all(not locks._queues and not locks._polled and locks._poller is None for locks in owners)
    assert descriptors(file) == 0
