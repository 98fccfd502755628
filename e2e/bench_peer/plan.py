"""Which cases there are, in which setting, and in which order both drivers take their turns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from e2e.bench_peer.cases import calls, idle, pods, restarts
from e2e.bench_peer.drivers import Driver, Side
from e2e.bench_peer.serving import Serving
from e2e.bench_peer.settings import MIG, MPS, SHARED, SLICED, UNTHROTTLED, WHOLE, Setting


@dataclass(frozen=True, slots=True)
class Case:
    """``name`` is what people choose it by; cases that are measured together share one."""

    name: str
    setting: Setting
    measure: Callable[[Serving], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """One driver, started for the cases of one setting."""

    driver: Driver
    setting: Setting
    cases: tuple[Case, ...]


# In a setting: first what wants a quiet driver, last what restarts it.
EVERY_ROUND = (
    Case("publication", WHOLE, idle.publication),
    Case("idle", WHOLE, idle.idle),
    Case("prepare", WHOLE, calls.paced),
    Case("back-to-back", WHOLE, calls.back_to_back),
    Case("pods", WHOLE, pods.single),
    Case("burst", WHOLE, pods.burst),
    Case("restart", WHOLE, restarts.plugin),
    Case("start", WHOLE, restarts.plugin_alone),
    Case("repeated", UNTHROTTLED, calls.repeated),
    Case("batch", UNTHROTTLED, calls.batched),
    Case("parallel", UNTHROTTLED, calls.parallel),
    Case("unthrottled", UNTHROTTLED, calls.unthrottled),
    Case("publication", MIG, idle.publication),
    Case("mig", MIG, calls.paced_mig),
    Case("start", MIG, restarts.plugin_alone),
    Case("time-slices", SLICED, calls.paced_sliced),
    Case("publication", SHARED, idle.publication),
    Case("share", SHARED, calls.paced_share),
    Case("mps", MPS, calls.paced_mps),
)
ONCE = (Case("kubelet", WHOLE, restarts.kubelet),)
DIFFERENCES = (pods.DIFFERENCE,)
NAMES = tuple(dict.fromkeys(case.name for case in (*EVERY_ROUND, *ONCE)))


def chosen(names: Sequence[str], cases: Sequence[Case]) -> tuple[Case, ...]:
    """Those of ``names``; all where none is named."""
    return tuple(case for case in cases if not names or case.name in names)


def turns(cases: Sequence[Case], drivers: Sequence[Driver]) -> Iterator[Turn]:
    """Setting by setting, both drivers in turns; a driver that cannot be run in a setting has none there."""
    for setting in dict.fromkeys(case.setting for case in cases):
        mine = tuple(case for case in cases if case.setting is setting)
        for driver in drivers:
            if not (driver.side is Side.PEER and setting.peer_problem):
                yield Turn(driver, setting, mine)
