"""Power is cut at any moment of a prepare or unprepare: the next boot finds whole files, and nothing of the last one."""

from __future__ import annotations

import itertools
from pathlib import Path
from unittest import mock

import pytest

from dra_driver.cdi.store import CdiStore
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.prepare.checkpoint import ENDED, ENDING
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.crash.power_cuts import Disk, World
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result
from tests.kubelet_plugin.prepare.on_this_thread import fly
from tests.kubelet_plugin.prepare.toy_node import ToyNode
from tests.long_runs import stride

HELD, MOVING = "held", "moving"


@pytest.fixture(params=[True, False], ids=["cdi-in-memory", "cdi-on-disk"])
def volatile(request: pytest.FixtureRequest) -> bool:
    """Whether the folder of CDI files is on a tmpfs."""
    return bool(request.param)


@pytest.mark.parametrize("device", ["gpu-1", "toy-ant"], ids=["one-write", "two-writes"])
@pytest.mark.parametrize("before", [(), (Operation.PREPARE,), (Operation.PREPARE, Operation.UNPREPARE)], ids=len)
@pytest.mark.parametrize("operations", [1, 2])
def test_the_next_boot_finds_whole_files_and_nothing_of_the_last_one(
    tmp_path: Path, volatile: bool, before: tuple[Operation, ...], operations: int, device: str
) -> None:
    """Within one or two operations on a claim, which follow what was done ``before`` with it."""
    with mock.patch.object(CdiStore, "is_volatile", volatile):
        disk = _cut(tmp_path / "node", before, operations, device)
        worlds = list(disk.worlds())
        assert len(worlds) >= 3
        for number, world in enumerate(worlds[:: stride(4)]):
            _check(tmp_path / f"world-{number}", tmp_path / "node", world, device, volatile=volatile)


def _cut(folder: Path, before: tuple[Operation, ...], operations: int, device: str) -> Disk:
    """What the disk may hold while a claim is prepared or unprepared beside another one."""
    node = _node(folder, device)
    engine = node.engine()
    _succeed(engine, Operation.PREPARE, HELD)
    turns = itertools.cycle((Operation.PREPARE, Operation.UNPREPARE))
    for operation in before:
        _succeed(engine, operation, MOVING)
        next(turns)
    disk = Disk(node.state, node.state / ENDING, node.state / ENDED, node.cdi.root)
    with disk.watch():
        for operation in itertools.islice(turns, operations):
            _succeed(engine, operation, MOVING)
    return disk


def _check(folder: Path, origin: Path, world: World, device: str, *, volatile: bool) -> None:
    """The machine is up again, with what it found on its disk and GPUs that know of nothing."""
    node = _node(folder, device)
    for path, content in world.items():
        is_gone = content is None or (volatile and path.parent.name == node.cdi.root.name)
        if not is_gone:
            here = folder / path.relative_to(origin)
            here.parent.mkdir(parents=True, exist_ok=True)
            here.write_bytes(content or b"")
    engine = node.engine("boot-2")
    assert not node.listener.damages
    assert not engine.entries()
    assert node.cdi.claim_uids() == ()
    assert node.left_overs() == []
    for operation in (Operation.PREPARE, Operation.UNPREPARE):
        _succeed(engine, operation, HELD, MOVING)
    assert node.cdi.claim_uids() == ()


def _node(folder: Path, device: str) -> TestNode:
    node = ToyNode(folder)
    node.claims.add(claim(HELD, result("gpu-3")), claim(MOVING, result(device)))
    return node


def _succeed(engine: PrepareEngine, operation: Operation, *uids: str) -> None:
    outcomes = [fly(engine, operation, ref(uid)) for uid in uids]
    assert not [each for each in outcomes if isinstance(each, Exception)]
