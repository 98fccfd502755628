"""Prepared claims are looked at again for another driver, once, and again while some have to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dra_driver.errors import StateError
from dra_driver.hardware.model import Machine
from kubelet_plugin.hardware.driver_change import DriverChange
from kubelet_plugin.hardware.watch import HardwareState
from tests.kubelet_plugin.fakes import eventually


class Watch:
    def __init__(self) -> None:
        self.state = HardwareState(True, Machine("580.105.08", 13000))
        self.listener: Callable[[], None] = lambda: None

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listener = listener

    def tell(self, state: HardwareState) -> None:
        self.state = state
        self.listener()


class Claims:
    """``answers`` are given one after the other, then True."""

    def __init__(self) -> None:
        self.answers: list[bool | Exception] = []
        self.looks: list[str] = []
        self.watch = Watch()

    def put_right(self) -> bool:
        machine = self.watch.state.machine
        self.looks.append(machine.driver_version if machine else "")
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def change(claims: Claims) -> Iterator[DriverChange]:
    change = DriverChange(claims.watch, claims.put_right, again=0.01)
    yield change
    change.stop()


def rounds(change: DriverChange) -> None:
    """Until a round that was asked for now has ended."""
    before = change.loop.last_round
    change.loop.wake()
    eventually(lambda: change.loop.last_round > before)


def test_claims_are_looked_at_once_for_each_driver(claims: Claims, change: DriverChange) -> None:
    change.start(done_for=change.version())
    rounds(change)
    assert claims.looks == [], "the start has done that"
    claims.watch.tell(HardwareState(True, None, "the module is not loaded"))
    rounds(change)
    claims.watch.tell(HardwareState(True, Machine("590.44.01", 13000)))
    eventually(lambda: claims.looks == ["590.44.01"])
    rounds(change)
    assert claims.looks == ["590.44.01"]


def test_a_start_without_hardware_leaves_the_look_for_later(claims: Claims, change: DriverChange) -> None:
    claims.watch.state = HardwareState(True, None, "no library")
    change.start(done_for=change.version())
    rounds(change)
    assert claims.looks == []
    claims.watch.tell(HardwareState(True, Machine("580.105.08", 13000)))
    eventually(lambda: claims.looks == ["580.105.08"])


def test_claims_that_have_to_wait_and_a_checkpoint_that_cannot_be_read_are_looked_at_again(
    claims: Claims, change: DriverChange
) -> None:
    claims.answers = [False, StateError("the checkpoint cannot be read"), True]
    change.start(done_for=None)
    eventually(lambda: len(claims.looks) == 3)
    rounds(change)
    assert len(claims.looks) == 3
