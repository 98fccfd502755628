"""The checkpoint file: durable changes, two writers, damage that is set aside and told."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

import kubelet_plugin.prepare.checkpoint as checkpoint_module
from dra_driver.errors import StateError
from dra_driver.files import Durability, write_atomically
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.prepare.checkpoint import Checkpoint, DamageKind
from kubelet_plugin.prepare.checkpoint_format import decode_file
from kubelet_plugin.prepare.locks import LockBusy, NamedLocks
from kubelet_plugin.prepare.marks import Marks
from tests.kubelet_plugin.prepare.node import BOOT, TestNode, claim, entry, ref, result


def test_update_is_read_by_others(node: TestNode) -> None:
    mine, others = node.checkpoint(), node.checkpoint()
    mine.update(put=[entry("u1"), entry("u2", "gpu-2")])
    assert set(others.entries()) == {"u1", "u2"}
    others.update(remove=["u1", "unknown"], put=[entry("u3", "gpu-3")])
    assert set(mine.entries()) == {"u2", "u3"}
    mine.update(put=[entry("u4")])
    assert set(others.entries()) == {"u2", "u3", "u4"}


def test_nothing_to_change_is_no_write(node: TestNode) -> None:
    checkpoint = node.checkpoint()
    checkpoint.update()
    assert not checkpoint.path.exists()
    assert not checkpoint.entries()


def test_many_threads_few_writes(node: TestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    first_write = threading.Event()

    def counted(path: Path, data: bytes, *, mode: int, durability: Durability) -> None:
        nonlocal writes
        writes += 1
        first_write.wait(0.05)  # the others come meanwhile
        write_atomically(path, data, mode=mode, durability=durability)

    monkeypatch.setattr(checkpoint_module, "write_atomically", counted)
    checkpoint = node.checkpoint()
    threads = [threading.Thread(target=checkpoint.update, kwargs={"put": [entry(f"u{n}")]}) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert set(node.checkpoint().entries()) == {f"u{n}" for n in range(12)}
    assert writes <= 4


def test_a_write_that_fails_changes_nothing(node: TestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = node.checkpoint()
    checkpoint.update(put=[entry("u1")])

    def full(path: Path, data: bytes, *, mode: int, durability: Durability) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_atomically", full)
        with pytest.raises(StateError, match="No space left"):
            checkpoint.update(put=[entry("u2")])
    assert set(checkpoint.entries()) == {"u1"}
    checkpoint.update(put=[entry("u3")])
    assert set(checkpoint.entries()) == {"u1", "u3"}


def states(checkpoint: Checkpoint) -> dict[str, ClaimState]:
    return {uid: each.state for uid, each in checkpoint.entries().items()}


def test_the_end_of_a_claim_is_seen_by_others(node: TestNode) -> None:
    mine, others = node.checkpoint(), node.checkpoint()
    mine.update(put=[entry("u1"), entry("u2", "gpu-2"), entry("u3", "gpu-3")])
    mine.ends("u1")
    mine.ends("u2")
    begun = ClaimState.UNPREPARE_STARTED
    assert states(others) == states(mine) == {"u1": begun, "u2": begun, "u3": ClaimState.COMPLETED}
    mine.forget("u2")
    mine.forget("u3")
    assert states(others) == states(mine) == {"u1": begun}
    others.update(put=[entry("u1")])
    assert states(others) == states(mine) == {"u1": ClaimState.COMPLETED}
    assert set(decode_file(mine.path.read_bytes()).entries) == {"u1"}
    assert node.left_overs() == []


def test_a_claim_that_comes_again_has_not_ended(node: TestNode) -> None:
    checkpoint = node.checkpoint()
    checkpoint.update(put=[entry("u1")])
    checkpoint.ends("u1")
    checkpoint.forget("u1")
    checkpoint.announce([entry("u1", "gpu-2", ClaimState.PREPARE_STARTED)])
    assert states(checkpoint) == {"u1": ClaimState.PREPARE_STARTED}
    assert node.left_overs() == []


def test_a_claim_is_not_back_when_its_process_was_killed_before_it_cleared_the_marks(
    node: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was done for it by then."""
    checkpoint = node.checkpoint()
    checkpoint.update(put=[entry("u1"), entry("u2", "gpu-2")])
    checkpoint.forget("u1")
    with monkeypatch.context() as patch:
        patch.setattr(Marks, "clear", lambda _self, _uids: (_ for _ in ()).throw(OSError(5, "killed")))
        with pytest.raises(StateError):
            checkpoint.announce([entry("u1")])
    assert set(node.checkpoint().entries()) == {"u2"}
    node.checkpoint().tidy()
    assert set(decode_file(checkpoint.path.read_bytes()).entries) == {"u2"}
    assert node.left_overs() == []


def test_marks_are_written_down_when_there_are_many(node: TestNode) -> None:
    checkpoint = node.checkpoint()
    uids = [f"u{number}" for number in range(70)]
    checkpoint.update(put=[entry(uid) for uid in uids])
    for uid in uids:
        checkpoint.forget(uid)
    assert checkpoint.entries() == {}
    assert len(decode_file(checkpoint.path.read_bytes()).entries) < 10


def test_a_file_that_cannot_be_read_is_an_error_not_an_empty_one(node: TestNode) -> None:
    checkpoint = node.checkpoint()
    checkpoint.path.mkdir()
    with pytest.raises(StateError, match="cannot read checkpoint"):
        checkpoint.entries()


def prepared(node: TestNode, *uids: str) -> None:
    engine = node.engine()
    for number, uid in enumerate(uids):
        node.claims.add(claim(uid, result(f"gpu-{number}")))
        assert isinstance(engine.prepare([ref(uid)], timeout=10)[uid], tuple)
    engine.stop()


def spoil(path: Path, old: bytes, new: bytes) -> bytes:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path.read_bytes()


def test_damage_is_set_aside_told_and_outlived(node: TestNode) -> None:
    prepared(node, "u1", "u2", "u3")
    path = node.state / "checkpoint.json"
    spoiled = spoil(path, b'"device":"gpu-1"', b'"device":"gpu-9"')
    engine = node.engine()
    (damage,) = node.listener.damages
    assert damage.kind is DamageKind.CORRUPT
    assert damage.kept == 2
    assert damage.record_lost == ("u2",)
    assert damage.set_aside is not None
    assert damage.set_aside.name.startswith("checkpoint.json.corrupt-2")
    assert damage.set_aside.read_bytes() == spoiled
    assert "u2" in str(damage)
    assert json.loads(path.read_bytes())["version"] == 1
    # The claim whose record is lost keeps its device and its file until it is unprepared.
    assert engine.entries()["u2"].state is ClaimState.RECORD_LOST
    assert node.cdi_devices("u2") == ["u2-gpu-1"]
    node.claims.add(claim("other", result("gpu-1")))
    refused = engine.prepare([ref("other")], timeout=10)["other"]
    assert "held by claim with UID u2" in str(refused)
    assert "known only from its CDI file" in str(refused)
    assert isinstance(engine.prepare([ref("u1")], timeout=10)["u1"], tuple)
    assert engine.unprepare([ref("u2")], timeout=10) == {"u2": None}
    assert isinstance(engine.prepare([ref("other")], timeout=10)["other"], tuple)
    assert len(node.listener.damages) == 1
    engine.stop()


def test_a_lost_record_is_made_anew_by_the_next_prepare(node: TestNode) -> None:
    prepared(node, "u1")
    (node.state / "checkpoint.json").write_bytes(b"")
    engine = node.engine()
    assert isinstance(engine.prepare([ref("u1")], timeout=10)["u1"], tuple)
    assert engine.entries()["u1"].state is ClaimState.COMPLETED
    engine.stop()


def test_a_newer_file_is_set_aside_under_its_own_name(node: TestNode) -> None:
    prepared(node, "u1")
    spoil(node.state / "checkpoint.json", b'"version":1', b'"version":2')
    engine = node.engine()
    (damage,) = node.listener.damages
    assert damage.kind is DamageKind.NEWER
    assert damage.set_aside is not None
    assert ".newer-" in damage.set_aside.name
    assert engine.entries()["u1"].state is ClaimState.COMPLETED
    engine.stop()


def test_a_missing_file_beside_cdi_files(node: TestNode) -> None:
    """As after NVIDIA's driver, whose CDI files have the same names: its claims stay prepared."""
    prepared(node, "u1")
    (node.state / "checkpoint.json").unlink()
    share = "5afb1ec1-3e70-424e-9ff3-402228e8682e"
    path = node.cdi.path("u1")
    path.write_bytes(path.read_bytes().replace(b"u1-gpu-0", f"u1-gpu-0-{share}".encode()))
    engine = node.engine()
    (damage,) = node.listener.damages
    assert (damage.kind, damage.set_aside, damage.record_lost) == (DamageKind.MISSING, None, ("u1",))
    (device,) = engine.entries()["u1"].prepared
    assert (device.device_name, device.share_id) == ("gpu-0", share)
    assert node.cdi.claim_uids() == ("u1",)
    assert engine.unprepare([ref("u1")], timeout=10) == {"u1": None}
    assert node.cdi.claim_uids() == ()
    engine.stop()


def test_damage_while_running(node: TestNode) -> None:
    engine = node.engine()
    node.claims.add(claim("u1", result("gpu-0")), claim("u2", result("gpu-1")))
    engine.prepare([ref("u1")], timeout=10)
    (node.state / "checkpoint.json").write_bytes(b"garbage")
    assert isinstance(engine.prepare([ref("u2")], timeout=10)["u2"], tuple)
    assert len(node.listener.damages) == 1
    assert {uid: item.state for uid, item in engine.entries().items()} == {
        "u1": ClaimState.RECORD_LOST,
        "u2": ClaimState.COMPLETED,
    }
    engine.stop()


def test_each_damage_has_a_file_of_its_own(node: TestNode) -> None:
    checkpoint = node.checkpoint()
    for _ in range(3):
        checkpoint.path.write_bytes(b"garbage")
        assert not checkpoint.entries()
    names = [damage.set_aside.name for damage in node.listener.damages if damage.set_aside]
    assert len(set(names)) == 3
    assert sorted(names) == sorted(name for name in os.listdir(node.state) if "corrupt" in name)


def test_a_plugin_that_was_stopped_while_it_writes_is_not_waited_for_for_ever(node: TestNode) -> None:
    node.state.mkdir(parents=True)
    checkpoint = Checkpoint(
        node.state, BOOT, NamedLocks(node.state / "locks"), lambda _known: (), lambda _damage: None, lock_seconds=0.1
    )
    with NamedLocks(node.state / "locks").hold(["checkpoint"]):
        with pytest.raises(LockBusy, match="end the old plugin's process"):
            checkpoint.update(put=[entry("u1")])
        with pytest.raises(LockBusy):
            checkpoint.tidy()
    checkpoint.update(put=[entry("u1")])
    assert set(checkpoint.entries()) == {"u1"}
