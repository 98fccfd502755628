"""What every world of a node has whose plugin is killed: claims come and go, and the next plugin goes on.

The plugin's work runs on this thread, so that a kill is an exception at any of its moments (``killing``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import ClassVar, Generic, TypeVar

from dra_driver.errors import DriverError
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.prepare.node import TestNode, ref
from tests.kubelet_plugin.prepare.on_this_thread import fly, start
from tests.property.killing import Clockwork, Killed

WantedT = TypeVar("WantedT")


class PluginWorld(ABC, Generic[WantedT]):
    """``claims``: what each claim wants, by UID. ``most_moments``: of the work that is killed at one of them."""

    most_moments: ClassVar[int]

    random: Random
    clockwork: Clockwork
    node: TestNode
    engine: PrepareEngine
    history: list[str]
    claims: dict[str, WantedT]
    boot: int
    kills: int
    prepared: int

    @abstractmethod
    def _new_claim(self) -> str:
        """The UID of a claim that is allocated from now on."""

    def prepare_again(self) -> None:
        if self.claims:
            self._do(Operation.PREPARE, self.random.choice(list(self.claims)))

    def unprepare(self) -> None:
        uid = self.random.choice([*self.claims, "never-seen"])
        if self._do(Operation.UNPREPARE, uid):
            self._forget(uid)

    def restart(self) -> None:
        self.history.append("restart")
        self.engine.stop(0.0)
        self.engine = self._start()

    def kill_in_something(self) -> None:
        """At one of its moments, if it has so many; then the next plugin starts, and may be killed in that."""
        acts = [self._prepare_and_unprepare, self._prepare_and_unprepare, self.prepare_again, self.unprepare]
        self._until_killed(self.random.choice(acts), self.random.randint(1, self.most_moments))
        while self.random.random() < 0.3:
            self._until_killed(self.restart, self.random.randint(1, 8))
        self.restart()

    @property
    def _boot_id(self) -> str:
        return f"boot-{self.boot}"

    def _start(self) -> PrepareEngine:
        engine = self.node.engine(self._boot_id, start=False)
        try:
            start(engine)
        except Killed:
            engine.stop(0.0)
            raise
        return engine

    def _until_killed(self, act: Callable[[], object], moment: int) -> None:
        self.clockwork.moments, self.clockwork.kill_at = 0, moment
        try:
            act()
        except Killed:
            self.kills += 1
            self.history.append("killed")
        finally:
            self.clockwork.kill_at = 0

    def _prepare_and_unprepare(self) -> None:
        uid = self._new_claim()
        if self._do(Operation.PREPARE, uid) and self._do(Operation.UNPREPARE, uid):
            self._forget(uid)

    def _do(self, operation: Operation, uid: str) -> bool:
        """Whether it succeeded. Errors are for the kubelet, which tries again; defects are not."""
        self.history.append(f"{operation} {uid} {self.claims.get(uid)}")
        answer = fly(self.engine, operation, ref(uid))
        self.history.append(f"  {answer if isinstance(answer, DriverError) else 'ok'}")
        assert type(answer) is not DriverError, f"a defect: {answer}"
        self.prepared += operation is Operation.PREPARE and not isinstance(answer, DriverError)
        return not isinstance(answer, DriverError)

    def _forget(self, uid: str) -> None:
        self.claims.pop(uid, None)
        self.node.claims.by_name.pop(uid, None)

    def _story(self, where: str) -> str:
        """For a failure: how to get there again, and what came last."""
        last = "\n".join(self.history[-30:])
        return f"{where}; the last that happened:\n{last}"
