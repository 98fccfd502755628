"""What a run collects, and the table and the comparison that it prints."""

from __future__ import annotations

from typing import Any

from e2e.bench_peer.comparison import Seen, differences, published, without
from e2e.bench_peer.drivers import Side
from e2e.bench_peer.figures import Difference, Figures, Samples
from e2e.bench_peer.report import ratio, table

PEER, OURS = Side.PEER, Side.OURS


def test_a_table_has_both_sides_their_ratio_and_their_numbers() -> None:
    figures = Figures()
    figures.add(PEER, "prepare", "ms", 2.0, 4.0, 9.0)
    figures.add(OURS, "prepare", "ms", 1.0)
    figures.add(OURS, "prepare", "ms", 3.0)
    figures.add(OURS, "only ours", "s", 0.5)
    assert table(figures.with_differences(())).splitlines() == [
        "| case      | peer: median / p95 | ours: median / p95 | ours/peer | n peer, ours |",
        "|-----------|--------------------|--------------------|-----------|--------------|",
        "| prepare   | 4 / 9 ms           | 2 / 3 ms           | 0.50      | 3, 2         |",
        "| only ours | -                  | 0.5 s              |           | 0, 1         |",
    ]


def test_a_run_without_a_peer_has_ours_alone() -> None:
    figures = Figures()
    figures.add(OURS, "prepare", "ms", 1.0, 3.0)
    assert table(figures.with_differences(())).splitlines() == [
        "| case    | ours: median / p95 | n |",
        "|---------|--------------------|---|",
        "| prepare | 2 / 3 ms           | 2 |",
    ]


def test_what_is_nothing_has_no_ratio() -> None:
    assert ratio(Samples("writes", "", {PEER: [0.0], OURS: [1.0]})) is None
    assert ratio(Samples("writes", "", {PEER: [2.0], OURS: [0.0]})) == 0.0


def test_a_difference_stands_below_its_minuend_for_the_sides_that_have_both() -> None:
    figures = Figures()
    for side, seconds in ((PEER, 0.3), (OURS, 0.4)):
        figures.add(side, "with", "s", seconds)
    figures.add(PEER, "without", "s", 0.1)
    lines = figures.with_differences((Difference("between", "with", "without", "ms", 1000),))
    assert [line.case for line in lines] == ["with", "between", "without"]
    assert {side: [round(value) for value in values] for side, values in lines[1].of.items()} == {PEER: [200]}


def test_a_note_is_said_once() -> None:
    figures = Figures()
    for _ in range(2):
        figures.note("the kubelet waited")
    assert figures.notes == ["the kubelet waited"]


def test_differences_are_told_by_their_paths() -> None:
    peer = {"a": {"b": 1, "gone": None}, "list": [1, 2, 3], "same": "x"}
    ours = {"a": {"b": 2}, "list": [1, 5], "same": "x", "new": {"c": True}}
    assert list(differences(peer, ours)) == [
        "/a/b: peer 1, ours 2",
        "/a/gone: only the peer has it: null",
        "/list/1: peer 2, ours 5",
        "/list/2: only the peer has it: 3",
        '/new: only ours has it: {"c": true}',
    ]


def test_kinds_that_differ_are_one_difference() -> None:
    assert list(differences({"a": [1]}, {"a": {"0": 1}})) == ['/a: peer [1], ours {"0": 1}']


def test_what_only_one_side_showed_is_not_compared() -> None:
    seen = Seen()
    seen.add("slices", PEER, {"a": 1})
    seen.add("slices", OURS, {"a": 1})
    seen.add("answer", OURS, {"a": 1})
    seen.add("files", PEER, {"a": 1})
    seen.add("files", OURS, {"a": 2})
    seen.add("files", OURS, {"a": 1})  # what is seen again counts no more
    assert list(seen.lines()) == [
        "compared: slices: the same",
        "compared: files: 1 difference",
        "    /a: peer 1, ours 2",
    ]


def test_many_differences_are_cut_short() -> None:
    seen = Seen()
    seen.add("files", PEER, {})
    seen.add("files", OURS, {f"{number:03}": 0 for number in range(100)})
    lines = list(seen.lines())
    assert lines[0] == "compared: files: 100 differences"
    assert lines[-1] == "    ... and 60 more"
    assert len(lines) == 42


def test_devices_and_counter_sets_are_compared_by_name_whatever_slice_they_are_in() -> None:
    slices: list[dict[str, Any]] = [
        {"spec": {"devices": [{"name": "gpu-1", "capacity": {}}]}},
        {"spec": {"sharedCounters": [{"name": "set-0", "counters": {"memory": 1}}], "devices": [{"name": "gpu-0"}]}},
    ]
    assert published(slices) == {"gpu-1": {"capacity": {}}, "gpu-0": {}, "set-0": {"counters": {"memory": 1}}}


def test_what_a_run_chose_is_replaced_in_keys_too() -> None:
    thing = {"claim_1234.yaml": {"devices": [{"name": "1234-gpu-0"}]}, "number": 1}
    assert without(thing, {"1234": "UID"}) == {"claim_UID.yaml": {"devices": [{"name": "UID-gpu-0"}]}, "number": 1}
