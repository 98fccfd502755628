"""Calls to an engine as a test wants them: the answer, or its error raised."""

from __future__ import annotations

from dra_driver.errors import DriverError
from kubelet_plugin.claims.model import PreparedDevice
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.prepare.node import ref


def prepare(engine: PrepareEngine, uid: str) -> tuple[PreparedDevice, ...]:
    answer = engine.prepare([ref(uid)], timeout=10)[uid]
    if isinstance(answer, DriverError):
        raise answer
    return answer


def unprepare(engine: PrepareEngine, *uids: str) -> None:
    answers = engine.unprepare([ref(uid) for uid in uids], timeout=10)
    for answer in answers.values():
        if answer is not None:
            raise answer
