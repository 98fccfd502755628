"""What a look means, and what the daemon's answers to its settings mean."""

from __future__ import annotations

import pytest

from dra_driver.mps.group import GroupState
from kubelet_plugin.mps_supervisor.control import refused, settings_commands, whole_numbers
from kubelet_plugin.mps_supervisor.group_steps import shm_kib
from kubelet_plugin.mps_supervisor.looks import Look, judged

BUSY = frozenset({11, 12})


@pytest.mark.parametrize(
    ("look", "state", "words"),
    [
        (Look(None, {}, frozenset()), GroupState.READY, ""),
        (Look(None, {5: "ACTIVE", 6: "INITIALIZING"}, BUSY, ""), GroupState.READY, ""),
        (Look("no answer within 3 s", {}, BUSY), GroupState.DEAD, "does not answer: no answer within 3 s"),
        (Look(None, {5: "FAULT"}, BUSY), GroupState.WEDGED, "server 5 is in status FAULT; its daemon"),
        (Look(None, {5: "FAULT"}, frozenset()), GroupState.WEDGED, "server 5 is in status FAULT"),
        (Look(None, {5: None}, BUSY), GroupState.WEDGED, "server 5 does not answer; .*no client is left .2 now"),
        (Look(None, {}, BUSY, trouble="its server is gone"), GroupState.WEDGED, "server is gone; its daemon"),
        (Look(None, {}, BUSY, shares={"a": "why"}), GroupState.WEDGED, "share a has not its limits: why$"),
        (Look(None, {5: "ACTIVE"}, BUSY, "x did not end"), GroupState.WEDGED, "no work gets through: x did not end;"),
    ],
)
def test_states(look: Look, state: GroupState, words: str) -> None:
    found, message = judged(look)
    assert found is state
    import re

    assert re.search(words, message) if words else message == ""


def test_settings_are_said_in_nvidias_words_and_asked_for_at_the_end() -> None:
    assert settings_commands(50, [("GPU-a", 10240), ("GPU-b", 1)]) == (
        "set_default_active_thread_percentage 50",
        "set_default_device_pinned_mem_limit GPU-a 10240M",
        "set_default_device_pinned_mem_limit GPU-b 1M",
        "get_default_active_thread_percentage",
    )
    assert settings_commands(None, []) == ("get_default_active_thread_percentage",)


@pytest.mark.parametrize(
    ("percentage", "answer", "problem"),
    [
        (None, ("100.0",), None),
        (50, ("50.0", "50.0"), None),
        (50, ("50.0",), None),
        (50, ("100.0",), "is 100.0, not 50"),
        (50, ("Invalid memory limit 0M", "50.0"), "Invalid memory limit 0M"),
        (50, (), "nothing was answered"),
    ],
)
def test_only_numbers_are_a_yes(percentage: int | None, answer: tuple[str, ...], problem: str | None) -> None:
    told = refused(percentage, answer)
    assert told == problem if problem is None else told is not None and problem in told


def test_process_ids() -> None:
    assert whole_numbers(("17", "words", "18")) == (17, 18)


def test_the_tmpfs_is_half_of_the_memory() -> None:
    assert shm_kib("MemFree:  12 kB\nMemTotal:       527000001 kB\nX: y\n") == 263500000
    assert shm_kib("MemTotal: many\n") == 65536
    assert shm_kib("") == 65536
