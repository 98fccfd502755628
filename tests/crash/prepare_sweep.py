"""Kills a plugin at every file operation of a prepare or unprepare, and looks at what the next one makes of it.

Run as a program of its own (``python -m tests.crash.prepare_sweep SCENARIO FOLDER``), because it forks: the child does
the operation and ends itself with ``os._exit`` just before the n-th file operation under the node's folder (an audit
hook sees open, rename, remove, mkdir and locks), leaving locks, temporary files and half-done work as a kill would. The
parent then plays the next plugin process. n goes up until the child gets through. Prints the number of kills.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dra_driver.errors import DriverError
from kubelet_plugin.failures import Operation
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.entry import ClaimState
from kubelet_plugin.prepare.flight import Flight
from kubelet_plugin.prepare.work import Answer
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result

KILLED = 9
EVENTS = frozenset(("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "fcntl.fcntl"))
UIDS = ("u1", "u2")
BYSTANDER = "bystander"


def run(engine: PrepareEngine, operation: Operation, *uids: str) -> dict[str, Answer]:
    """The operation on this very thread: a process that forks has no others."""
    flights: list[Flight[Answer]] = [Flight(operation, ref(uid), None) for uid in uids]
    work = engine._work
    return work.prepare(flights) if operation is Operation.PREPARE else work.unprepare(flights)


def succeeded(answers: dict[str, Answer]) -> None:
    failed = [answer for answer in answers.values() if isinstance(answer, DriverError)]
    assert not failed, failed


def recovered(engine: PrepareEngine) -> None:
    engine.start()


def node_in(folder: Path) -> TestNode:
    node = TestNode(folder)
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-2")), claim(BYSTANDER, result("gpu-3")))
    engine = node.engine()
    succeeded(run(engine, Operation.PREPARE, BYSTANDER))
    return node


def killed_at(position: int, folder: Path, act: Callable[[], None]) -> bool:
    """Whether the child that does ``act`` was killed at its ``position``-th file operation."""
    child = os.fork()
    if child == 0:
        left = position

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event not in EVENTS:
                return
            if event != "fcntl.fcntl" and not str(arguments[0]).startswith(str(folder)):
                return
            left -= 1
            if left == 0:
                os._exit(KILLED)

        sys.addaudithook(hook)
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - the child must not return into the parent's program
            print(f"child failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"child ended with {code}"
    return code == KILLED


def check_consistent(node: TestNode, engine: PrepareEngine) -> None:
    """After recovery: no half-done claim, a CDI file for exactly the prepared ones, and the bystander untouched."""
    entries = engine.entries()
    assert {entry.state for entry in entries.values()} <= {ClaimState.COMPLETED}
    assert set(node.cdi.claim_uids()) == set(entries)
    assert node.cdi_devices(BYSTANDER) == [f"{BYSTANDER}-gpu-3"]
    assert node.left_overs() == []


def crash_in_prepare_then_retry(node: TestNode, position: int, folder: Path, *, recover: bool) -> bool:
    before = node.engine(start=False)
    killed = killed_at(position, folder, lambda: succeeded(run(before, Operation.PREPARE, *UIDS)))
    after = node.engine(start=recover)
    if recover:
        check_consistent(node, after)
    answers = run(after, Operation.PREPARE, *UIDS)
    succeeded(answers)
    assert node.cdi.claim_uids() == (BYSTANDER, *UIDS)
    assert run(node.engine(), Operation.PREPARE, *UIDS) == answers
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    check_consistent(node, node.engine())
    return killed


def crash_in_prepare_then_unprepare(node: TestNode, position: int, folder: Path, *, recover: bool) -> bool:
    before = node.engine(start=False)
    killed = killed_at(position, folder, lambda: succeeded(run(before, Operation.PREPARE, *UIDS)))
    after = node.engine(start=recover)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    assert node.cdi.claim_uids() == (BYSTANDER,)
    check_consistent(node, node.engine())
    return killed


def crash_in_unprepare(node: TestNode, position: int, folder: Path, *, recover: bool) -> bool:
    before = node.engine(start=False)
    succeeded(run(before, Operation.PREPARE, *UIDS))
    killed = killed_at(position, folder, lambda: succeeded(run(before, Operation.UNPREPARE, *UIDS)))
    after = node.engine(start=recover)
    if recover:
        check_consistent(node, after)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    assert node.cdi.claim_uids() == (BYSTANDER,)
    check_consistent(node, node.engine())
    return killed


def crash_in_recovery(node: TestNode, position: int, folder: Path, *, recover: bool) -> bool:
    """A kill in the middle of the start that follows a kill."""
    before = node.engine(start=False)
    killed_at(9, folder, lambda: succeeded(run(before, Operation.PREPARE, *UIDS)))
    starting = node.engine(start=False)
    killed = killed_at(position, folder, lambda: recovered(starting))
    after = node.engine(start=recover)
    succeeded(run(after, Operation.PREPARE, *UIDS))
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    check_consistent(node, node.engine())
    return killed


SCENARIOS: dict[str, Callable[..., bool]] = {
    "prepare-retry": crash_in_prepare_then_retry,
    "prepare-unprepare": crash_in_prepare_then_unprepare,
    "unprepare": crash_in_unprepare,
    "recovery": crash_in_recovery,
}


def sweep(scenario: str, folder: Path, *, recover: bool) -> int:
    """How many different kills there were until the operation got through."""
    position = 1
    while True:
        here = folder / f"{scenario}-{position}-{recover}"
        if not SCENARIOS[scenario](node_in(here), position, here, recover=recover):
            return position - 1
        position += 1


if __name__ == "__main__":
    for with_recovery in (True, False):
        print(sweep(sys.argv[1], Path(sys.argv[2]), recover=with_recovery))
