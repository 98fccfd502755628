"""What a new plugin process puts right, and what it leaves alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from kubelet_plugin.claims.entry import ClaimState, StepRecord
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.recovery import Recovered
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.prepare.node import TestNode, claim, entry, ref, result


def prepared(node: TestNode, uid: str = "u1", device: str = "gpu-1") -> PrepareEngine:
    node.claims.add(claim(uid, result(device)))
    engine = node.engine()
    assert isinstance(engine.prepare([ref(uid)], timeout=10)[uid], tuple)
    return engine


def set_state(node: TestNode, uid: str, state: ClaimState) -> None:
    checkpoint = node.checkpoint()
    checkpoint.update(put=[replace(checkpoint.entries()[uid], state=state)])


def test_nothing_to_do(node: TestNode) -> None:
    assert node.engine(start=False).start() == Recovered()
    assert not (node.state / "checkpoint.json").exists()


def test_half_done_claims_are_undone(node: TestNode) -> None:
    prepared(node, "u1", "gpu-1").stop()
    prepared(node, "u2", "gpu-2").stop()
    set_state(node, "u1", ClaimState.PREPARE_STARTED)
    set_state(node, "u2", ClaimState.UNPREPARE_STARTED)
    assert node.engine(start=False).start() == Recovered(rolled_back=("u1",), unprepared=("u2",))
    assert node.cdi.claim_uids() == ()
    assert node.left_overs() == []


def test_a_prepared_claims_file_is_mended(node: TestNode) -> None:
    prepared(node).stop()
    content = node.cdi.path("u1").read_bytes()
    node.cdi.remove("u1")
    assert node.engine(start=False).start() == Recovered(restored=("u1",))
    assert node.cdi.path("u1").read_bytes() == content


def test_a_missing_driver_does_not_stop_the_start(node: TestNode) -> None:
    prepared(node).stop()
    node.cdi.remove("u1")
    (node.root / "usr").rename(node.root / "gone")
    engine = node.engine(start=False)
    assert engine.start() == Recovered(failed=("u1",))
    assert "u1" in engine.entries()
    (node.root / "gone").rename(node.root / "usr")
    assert isinstance(engine.prepare([ref("u1")], timeout=10)["u1"], tuple)
    assert node.cdi.claim_uids() == ("u1",)


def test_half_written_files_go_and_those_of_others_stay(node: TestNode) -> None:
    prepared(node).stop()
    stray = node.cdi.path("stray")  # of another driver: see takeover
    stray.write_bytes(b"---\n")
    foreign = node.cdi.root / "nvidia.yaml"
    foreign.write_bytes(b"---\n")
    temporary = node.cdi.root / f".{node.cdi.path('u9').name}.0123abcd.tmp"
    temporary.write_bytes(b"half")
    unfinished = node.state / ".checkpoint.json.0123abcd.tmp"
    unfinished.write_bytes(b"half")
    assert node.engine(start=False).start() == Recovered(restored=("u1",))
    assert foreign.exists()
    assert not any(path.exists() for path in (temporary, unfinished))
    assert node.left_overs() == ["stray"]


def test_what_another_process_works_on_is_left_alone(node: TestNode) -> None:
    other = prepared(node)
    set_state(node, "u1", ClaimState.PREPARE_STARTED)
    with other._locks.hold(["claim-u1"]):
        assert node.engine(start=False).start() == Recovered(busy=("u1",))
    assert node.cdi.claim_uids() == ("u1",)
    assert node.engine(start=False).start() == Recovered(rolled_back=("u1",))


@pytest.mark.parametrize("state", [ClaimState.PREPARE_STARTED, ClaimState.COMPLETED])
def test_a_gpu_that_another_plugin_works_on_does_not_hold_up_the_start(node: TestNode, state: ClaimState) -> None:
    old = prepared(node, "u1", "gpu-1")
    prepared(node, "u2", "gpu-2").stop()
    node.cdi.remove("u1")
    set_state(node, "u1", state)
    gpu = node.machine.gpus[1].uuid
    engine = node.engine(start=False, start_seconds=0.5)
    with old._locks.hold([f"device-{gpu}"]):
        began = time.monotonic()
        assert engine.start() == Recovered(restored=("u2",), postponed=("u1",))
        assert time.monotonic() - began < 2
        assert node.listener.postponed == [("u1",)]
        assert isinstance(engine.unprepare([ref("u2")], timeout=10)["u2"], type(None)), "other GPUs are served"
        assert node.cdi.claim_uids() == ()
    if state is ClaimState.COMPLETED:
        eventually(lambda: node.cdi.claim_uids() == ("u1",))
    else:
        eventually(lambda: not engine.entries())
    eventually(lambda: not engine._flights.under_way())
    engine.stop()
    old.stop()


def test_a_stop_ends_the_waiting_for_another_plugin(node: TestNode) -> None:
    old = prepared(node)
    set_state(node, "u1", ClaimState.PREPARE_STARTED)
    engine = node.engine(start=False, start_seconds=0.05)
    with old._locks.hold([f"device-{node.machine.gpus[1].uuid}"]):
        assert engine.start().postponed == ("u1",)
        began = time.monotonic()
        engine.stop()
        assert time.monotonic() - began < 5
        assert not engine._flights.under_way()
    assert "u1" in engine.entries(), "for the next start"


def test_what_could_not_be_put_right_at_the_start_can_be_later(node: TestNode) -> None:
    prepared(node).stop()
    content = node.cdi.path("u1").read_bytes()
    node.cdi.remove("u1")
    (node.root / "usr").rename(node.root / "gone")
    engine = node.engine(start=False)
    engine.start()
    assert not engine.put_right()
    (node.root / "gone").rename(node.root / "usr")
    assert engine.put_right()
    assert node.cdi.path("u1").read_bytes() == content


def test_what_cannot_even_be_looked_at_is_not_done(node: TestNode, caplog: pytest.LogCaptureFixture) -> None:
    engine = prepared(node)
    (node.state / "locks").unlink()
    (node.state / "locks").mkdir()
    assert not engine.put_right()
    assert "claim default/u1:u1 cannot be put right yet: cannot lock" in caplog.text
    (node.state / "locks").rmdir()
    assert engine.put_right()


def test_what_is_worked_on_meanwhile_is_looked_at_again(node: TestNode) -> None:
    """A prepare that began before the driver changed ends with the files of the one before."""
    engine = prepared(node)
    with engine._locks.hold(["claim-u1"]):
        assert not engine.put_right()
    assert engine.put_right()


def test_a_step_that_cannot_be_undone_stays_recorded(node: TestNode) -> None:
    strange = replace(entry("u1"), state=ClaimState.PREPARE_STARTED, steps=(StepRecord("FromTheFuture"),))
    node.checkpoint().update(put=[strange])
    engine = node.engine(start=False)
    assert engine.start() == Recovered(failed=("u1",))
    assert engine.entries()["u1"] == strange
    assert "FromTheFuture" in str(engine.unprepare([ref("u1")], timeout=10)["u1"])


def test_claims_of_an_earlier_boot_are_undone_and_forgotten(node: TestNode) -> None:
    """A power cut may take an acknowledged unprepare; no second one comes, so the record would stay for ever."""
    prepared(node).stop()
    engine = node.engine("boot-2", start=False)
    assert engine.start() == Recovered(outlived=("u1",))
    assert node.cdi.claim_uids() == ()
    assert not engine.entries()
    assert node.engine("boot-2", start=False).start() == Recovered()
