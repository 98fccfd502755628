"""Our allocator gives what kube-scheduler's own gives: on every case of ``share_cases`` and on generated nodes.

The real one is a program of ``e2e.clusters.programs`` and runs where that has been built (``make programs``). Admin
access is left out: there we differ on purpose (``dra_driver/allocator/counters.py``).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.reasons import Failure, explain
from dra_driver.allocator.status import allocation_status
from dra_driver.simulation.hardware.description import recorded_machines
from dra_driver.simulation.manifests import device_classes
from e2e.clusters import programs
from tests.allocator import share_cases, share_worlds
from tests.allocator.builders import share_ids
from tests.allocator.share_cases import CASES, Case
from tests.long_runs import steps
from tests.property.fraction_nodes import NODE
from tests.property.fraction_world import FractionWorld

ENGINE = CelEngine()
_SETS_OF_A_WORLD = 20
Outcome = list[Obj] | str | None
"""An allocation per claim, an error, or None when the claims do not fit."""

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("real-allocator")]


class RealAllocator:
    """The program, one question a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(
        self,
        slices: list[Obj],
        classes: list[Obj],
        held: list[Obj],
        wanted: Sequence[Obj],
        node: str = share_worlds.NODE,
    ) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question: Obj = {"slices": slices, "classes": classes, "claims": held, "wanted": list(wanted)}
        question["node"] = {"metadata": {"name": node}}
        self._process.stdin.write(f"{json.dumps(question)}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        error: str = answer.get("error", "")
        allocations: list[Obj] | None = answer["allocations"]
        return error or allocations


@pytest.fixture(scope="module")
def real() -> Iterator[RealAllocator]:
    folder = programs.find(programs.ALLOCATOR)
    if folder is None:
        pytest.skip(f"no real allocator: {programs.ALLOCATOR.target} is not built (make programs)")
    command = [str(folder / programs.ALLOCATOR.output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield RealAllocator(process)


def ours(
    slices: list[Obj], classes: list[Obj], held: list[Obj], wanted: Sequence[Obj], node: str = share_worlds.NODE
) -> Outcome:
    allocator = Allocator(ENGINE, Snapshot.from_objects(slices, classes, held))
    outcome = allocator.allocate(Node(node), [parse_claim(entry) for entry in wanted])
    if isinstance(outcome, Failure):
        return explain({node: outcome}) if outcome.fatal else None
    new_id = share_ids()
    return [allocation_status(result, node, "2026-11-23T08:03:30Z", new_id) for result in outcome]


def comparable(outcome: Outcome) -> object:
    """Without what differs from one run to the next: share ids, times, the words of an error."""
    if not isinstance(outcome, list):
        return "an error" if outcome else None
    allocations: list[Obj] = json.loads(json.dumps(outcome))
    for allocation in allocations:
        allocation.pop("allocationTimestamp", None)
        for result in allocation["devices"]["results"]:
            if "shareID" in result:
                result["shareID"] = "made"
    return allocations


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_cases(real: RealAllocator, case: Case) -> None:
    outcome = real.ask(case.slices, share_cases.CLASSES, case.held, case.wanted)
    assert comparable(outcome) == comparable(ours(case.slices, share_cases.CLASSES, case.held, case.wanted))
    if isinstance(outcome, list):
        assert [share_cases.given_by(allocation) for allocation in outcome] == case.given
    else:
        assert bool(outcome) == isinstance(case.given, str)


@settings(max_examples=steps(300, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_generated_nodes(real: RealAllocator, data: st.DataObject) -> None:
    """Pods come and go on one node."""
    slices = data.draw(share_worlds.slices())
    held: list[Obj] = []
    for number in range(data.draw(st.integers(1, 5))):
        leaving = data.draw(st.sampled_from([None, *range(len(held))]))
        if leaving is not None:
            held.pop(leaving)
        wanted = data.draw(share_worlds.pods(f"p{number}"))
        outcome = ours(slices, share_worlds.CLASSES, held, wanted)
        assert comparable(outcome) == comparable(real.ask(slices, share_worlds.CLASSES, held, wanted))
        if isinstance(outcome, list):
            statuses = zip(wanted, outcome, strict=True)
            held += [{**entry, "status": {"allocation": allocation}} for entry, allocation in statuses]


@pytest.mark.parametrize("machine", recorded_machines())
def test_fractions_of_recorded_machines(real: RealAllocator, machine: str) -> None:
    """Pods come and go on nodes that are offered in fractions, with MIG and without."""
    classes = list(device_classes())
    for seed in range(steps(40, 2)):
        world = FractionWorld(machine, seed)
        for _ in range(_SETS_OF_A_WORLD):
            world.free_some()
            wanted = world.random_claims()
            held = list(world.held.values())
            outcome = ours(world.slices, classes, held, wanted, NODE)
            theirs = real.ask(world.slices, classes, held, wanted, NODE)
            assert comparable(outcome) == comparable(theirs), f"{theirs}\n{world.story()}"
            world.ask(wanted)
