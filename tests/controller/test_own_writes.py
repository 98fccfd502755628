"""The overlay of our own writes over a watch that lags."""

from __future__ import annotations

import pytest

from controller.own_writes import OwnWrites, is_older
from dra_driver.kube.interface import Obj


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own(clock: Clock) -> OwnWrites:
    return OwnWrites(remember_seconds=60, clock=clock)


def obj(name: str, version: int, uid: str = "") -> Obj:
    return {"metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}}


def test_created_slice_is_there_before_the_watch_shows_it(own: OwnWrites) -> None:
    own.wrote(obj("a", 5))
    assert own.overlay([]) == [obj("a", 5)]
    assert own.unconfirmed()
    assert own.overlay([obj("a", 5)]) == [obj("a", 5)]
    assert not own.unconfirmed()


def test_newer_of_watch_and_own_write_counts(own: OwnWrites) -> None:
    own.wrote(obj("a", 15))
    assert own.overlay([obj("a", 9)]) == [obj("a", 15)]
    assert own.overlay([obj("a", 16)]) == [obj("a", 16)]


def test_own_deletion_is_no_wipe_and_hides_the_slice(own: OwnWrites) -> None:
    own.will_delete("uid-a")
    own.is_gone("a", "uid-a")
    assert own.overlay([obj("a", 9)]) == []
    assert not own.saw_deletion(obj("a", 10))
    assert not own.unconfirmed()


def test_own_deletion_whose_event_comes_first_is_no_wipe(own: OwnWrites) -> None:
    own.will_delete("uid-a")
    assert not own.saw_deletion(obj("a", 10))


def test_deletion_by_others_is_a_wipe(own: OwnWrites) -> None:
    assert own.saw_deletion(obj("a", 10))
    own.will_delete("uid-b")
    own.did_not_delete("uid-b")
    assert own.saw_deletion(obj("b", 11))


def test_deletion_that_a_404_told_already_is_not_counted_twice(own: OwnWrites) -> None:
    own.is_gone("a", "uid-a")
    assert not own.saw_deletion(obj("a", 10))


def test_late_answer_to_a_write_does_not_bring_back_a_wiped_slice(own: OwnWrites) -> None:
    assert own.saw_deletion(obj("a", 6))
    own.wrote(obj("a", 5))
    assert own.overlay([]) == []


def test_wipe_of_a_slice_that_the_watch_never_showed_is_believed_after_a_minute(own: OwnWrites, clock: Clock) -> None:
    own.wrote(obj("a", 5))
    clock.now += 59
    assert own.overlay([]) == [obj("a", 5)]
    clock.now += 1
    assert own.overlay([]) == []


def test_same_name_with_another_uid_is_another_slice(own: OwnWrites) -> None:
    own.is_gone("a", "uid-a")
    assert own.overlay([obj("a", 20, "other")]) == [obj("a", 20, "other")]


def test_versions_are_compared_as_numbers() -> None:
    assert is_older({"resourceVersion": "9"}, {"resourceVersion": "10"})
    assert not is_older({"resourceVersion": "10"}, {"resourceVersion": "10"})
    assert is_older({"resourceVersion": "a"}, {"resourceVersion": "b"})
