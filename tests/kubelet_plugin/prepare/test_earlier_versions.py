"""What earlier versions of the driver wrote is read, answered, rewritten byte for byte, and undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.devices.naming import MigName, read_name
from dra_driver.errors import DriverError
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.kinds.mig.place import MigPlace, place_of
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.recovery import Recovered
from tests.devices.recorded import recorded
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result

DATA = Path(__file__).parents[2] / "data" / "checkpoints" / "first-mig"
SHARE = "5afb1ec1-3e70-424e-9ff3-402228e8682e"
MIG = ("gpu-1-mig-1g10gb-19-0", "gpu-1-mig-3g40gb-9-4", "gpu-2-mig-1c3g40gb-9-0-c0")
PREPARED = {"admin", "mig", "part", "share", "whole"}


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    """As that version left it: its files, and the instances of its claims."""
    node = TestNode(tmp_path, on=recorded("h100-sxm5-80gb", 4))
    node.state.mkdir()
    node.cdi.root.mkdir()
    (node.state / "checkpoint.json").write_bytes((DATA / "checkpoint.json").read_bytes())
    for file in DATA.glob("*.yaml"):
        (node.cdi.root / file.name).write_bytes(file.read_bytes())
    for name in MIG:
        _make(node, name)
    node.claims.add(
        claim("whole", result("gpu-0")),
        claim("mig", result(MIG[0], "a"), result(MIG[1], "b/large")),
        claim("part", result(MIG[2])),
        claim("share", result("gpu-3", shareID=SHARE)),
        claim("admin", result("gpu-0", adminAccess=True)),
    )
    return node


def _make(node: TestNode, device: str) -> None:
    name = read_name(device)
    assert isinstance(name, MigName)
    gpu = node.machine.gpus[name.minor]
    place = place_of(name, gpu)
    assert isinstance(place, MigPlace)
    if not node.fake_mig.mode(gpu.uuid)[0]:
        node.fake_mig.set_mode(gpu.uuid, True)
    made = node.fake_mig.create_gpu_instance(gpu.uuid, place.profile_id, place.placement)
    node.fake_mig.create_compute_instance(gpu.uuid, made, place.slices)


def _files(node: TestNode) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in node.cdi.root.iterdir()}


def test_the_claims_of_an_earlier_version_go_on(node: TestNode) -> None:
    before = _files(node)
    engine = node.engine(start=False)
    assert engine.start() == Recovered(rolled_back=("half",), restored=tuple(sorted(PREPARED)))
    assert {uid: entry.state for uid, entry in engine.entries().items()} == dict.fromkeys(
        PREPARED, ClaimState.COMPLETED
    )
    for uid in PREPARED:
        assert not isinstance(engine.prepare([ref(uid)], timeout=10)[uid], DriverError)
    del before["k8s.gpu.nvidia.com-claim_half.yaml"]
    assert _files(node) == before
    _undo(node, engine)


def _undo(node: TestNode, engine: PrepareEngine) -> None:
    assert engine.unprepare([ref(uid) for uid in PREPARED], timeout=10) == dict.fromkeys(PREPARED)
    assert (node.left_overs(), node.fake_mig.everything(), dict(engine.entries())) == ([], {}, {})
    engine.stop()


def test_they_are_undone_without_being_prepared_again(node: TestNode) -> None:
    engine = node.engine()
    _undo(node, engine)
