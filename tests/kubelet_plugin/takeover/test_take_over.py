"""The plugin starts on a node that NVIDIA's driver has left with pods running, and gives it back."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import replace

import pytest

from api.claim_config import TimeSliceInterval
from dra_driver.devices.policy import MigPolicy
from dra_driver.errors import DriverError, StateError
from kubelet_plugin.claims.entry import ClaimState, StepRecord
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.locks import LockBusy
from kubelet_plugin.takeover.nvidia_checkpoint import NvidiaClaim, NvidiaState, decode
from kubelet_plugin.takeover.take_over import TakenOver
from tests.kubelet_plugin.prepare.node import BOOT, DRIVER, claim, config, opaque, ref, result
from tests.kubelet_plugin.takeover.changing_node import ChangingNode
from tests.kubelet_plugin.takeover.nvidia import begun, finished, recorded, with_state

MIG = "gpu-1-mig-3g40gb-9-0"
BESIDE = "gpu-1-mig-3g40gb-9-4"


def prepare(node: ChangingNode, engine: PrepareEngine, uid: str, device: str) -> object:
    node.claims.add(claim(uid, result(device)))
    return engine.prepare([ref(uid)], timeout=10)[uid]


def unprepare(engine: PrepareEngine, uid: str) -> DriverError | None:
    return engine.unprepare([ref(uid)], timeout=10)[uid]


def test_a_whole_gpu_is_held_answered_and_given_back(node: ChangingNode) -> None:
    node.nvidia_leaves(finished("theirs", "gpu-0", node.machine.gpus[0].uuid))
    taken, engine = node.starts()
    assert taken == TakenOver(from_nvidia=("theirs",))
    assert not node.nvidia_file.exists(), "or a later start would take it over again"
    refused = prepare(node, engine, "ours", "gpu-0")
    assert "device gpu-0 is held by claim with UID theirs on this node" in str(refused)
    answer = prepare(node, engine, "theirs", "gpu-0")
    assert isinstance(answer, tuple)
    assert [device.cdi_device_ids for device in answer] == [("k8s.gpu.nvidia.com/claim=theirs-gpu-0",)]
    assert str(engine.entries()["theirs"].ref) == "default/theirs:theirs", "the kubelet has told its name"
    assert unprepare(engine, "theirs") is None
    assert node.cdi.claim_uids() == ()
    assert isinstance(prepare(node, engine, "ours", "gpu-0"), tuple)
    assert not node.told.incomplete


def test_a_mig_device_keeps_its_instance_and_gives_it_up_at_its_end(node: ChangingNode) -> None:
    node.nvidia_leaves(node.nvidia_made("theirs", MIG))
    before = node.everything()
    _taken, engine = node.starts()
    assert node.everything() == before
    assert "theirs" in str(prepare(node, engine, "whole", "gpu-1"))
    assert isinstance(prepare(node, engine, "beside", BESIDE), tuple)
    answer = prepare(node, engine, "theirs", MIG)
    assert isinstance(answer, tuple)
    assert [device.cdi_device_ids for device in answer] == [(f"k8s.gpu.nvidia.com/claim=theirs-{MIG}",)]
    assert unprepare(engine, "beside") is None
    assert node.everything() == before
    assert unprepare(engine, "theirs") is None
    assert node.everything() == {}
    assert not node.control.mode(node.machine.gpus[1].uuid)[0], "MIG mode is off again, as with NVIDIA's driver"
    assert node.cdi.claim_uids() == ()


def test_a_static_mig_device_stays(node: ChangingNode) -> None:
    node.policy = MigPolicy(dynamic_by_default=False)  # as without NVIDIA's feature gate DynamicMIG
    node.nvidia_leaves(node.nvidia_made("theirs", MIG))
    before = node.everything()
    _taken, engine = node.starts()
    assert unprepare(engine, "theirs") is None
    assert node.everything() == before


def test_where_instances_of_nobody_lie_nvidias_driver_made_none(node: ChangingNode) -> None:
    """It would have destroyed them at its start; so the claim's was made by an administrator, too."""
    node.nvidia_leaves(node.nvidia_made("theirs", MIG))
    node.by_hand(node.machine.gpus[1].uuid, 9, 4)
    before = node.everything()
    _taken, engine = node.starts()
    assert unprepare(engine, "theirs") is None
    assert node.everything() == before


def test_a_begun_claim_is_rolled_back_and_what_a_finished_one_holds_stays(node: ChangingNode) -> None:
    kept, half = node.nvidia_made("kept", MIG), node.nvidia_made("half", BESIDE)
    half = begun(half.uid, half.devices[0].name)
    node.nvidia_leaves(kept, half, begun("failed", MIG))
    _taken, engine = node.starts()
    assert list(engine.entries()) == ["kept"]
    (left,) = node.everything().values()
    assert [instance.placement.start for instance in left] == [0]


def test_claims_of_ours_are_untouched_and_those_of_an_earlier_boot_ignored(node: ChangingNode) -> None:
    gpu = node.machine.gpus[0].uuid
    _nothing, engine = node.starts()
    assert isinstance(prepare(node, engine, "ours", "gpu-0"), tuple)
    engine.stop()
    ours = engine.entries()["ours"]
    node.nvidia_leaves(finished("ours", "gpu-0", gpu), boot_id="boot-0")
    assert node.take_over().start() == TakenOver()
    node.nvidia_leaves(finished("ours", "gpu-0", gpu))
    assert node.take_over().start() == TakenOver()
    assert node.checkpoint().entries() == {"ours": ours}


def test_the_kubelet_tells_names(node: ChangingNode) -> None:
    node.kubelet_has("theirs")
    node.nvidia_leaves(finished("theirs", "gpu-0", node.machine.gpus[0].uuid))
    _taken, engine = node.starts()
    assert "held by claim team/claim-theirs:theirs" in str(prepare(node, engine, "ours", "gpu-0"))
    assert node.told.taken == ["claims taken over from NVIDIA's driver: team/claim-theirs:theirs"]


def sliced(uid: str, device: str, gpu_uuid: str) -> NvidiaClaim:
    return replace(finished(uid, device, gpu_uuid), time_sliced=True)


def test_the_time_slices_of_a_claim_are_kept_and_set_back_at_its_end(node: ChangingNode) -> None:
    uuids = [gpu.uuid for gpu in node.machine.gpus]
    node.time_slices.set_interval(uuids[0], TimeSliceInterval.MEDIUM)
    node.time_slices.set_interval(uuids[1], TimeSliceInterval.SHORT)  # by an administrator
    node.nvidia_leaves(sliced("theirs", "gpu-0", uuids[0]), finished("plain", "gpu-1", uuids[1]))
    _taken, engine = node.starts()
    assert engine.entries()["theirs"].steps[0] == StepRecord(
        "TimeSlice", {"gpu": uuids[0], "interval": ""}, {"interval": "Medium"}
    )
    assert node.time_slices.interval(uuids[0]) is TimeSliceInterval.MEDIUM
    assert isinstance(prepare(node, engine, "theirs", "gpu-0"), tuple)
    assert unprepare(engine, "theirs") is None
    assert unprepare(engine, "plain") is None
    assert [node.time_slices.interval(uuid) for uuid in uuids] == [TimeSliceInterval.DEFAULT, TimeSliceInterval.SHORT]
    assert not node.told.incomplete


def test_what_a_begun_claim_has_set_is_set_back(node: ChangingNode) -> None:
    """NVIDIA's driver leaves it (its partial rollback knows no time slices)."""
    uuid = node.machine.gpus[0].uuid
    node.time_slices.set_interval(uuid, TimeSliceInterval.LONG)
    node.nvidia_leaves(begun("half", "gpu-0"))
    _taken, engine = node.starts()
    assert (engine.entries(), node.time_slices.interval(uuid)) == ({}, TimeSliceInterval.DEFAULT)


def test_time_slices_are_set_back_also_where_the_hardware_was_silent_at_the_start(node: ChangingNode) -> None:
    uuid = node.machine.gpus[0].uuid
    node.time_slices.set_interval(uuid, TimeSliceInterval.LONG)
    node.nvidia_leaves(sliced("theirs", "gpu-0", uuid))
    node.silent = True
    node.take_over().start()
    assert node.checkpoint().entries()["theirs"].state is ClaimState.RECORD_LOST
    assert unprepare(node.engine(), "theirs") is None
    assert node.time_slices.interval(uuid) is TimeSliceInterval.DEFAULT


def test_what_we_cannot_undo_is_said_and_its_file_left_as_it_is(node: ChangingNode) -> None:
    node.nvidia_leaves(finished("theirs", "gpu-0", node.machine.gpus[0].uuid))
    content = node.cdi.path("theirs").read_bytes()
    node.nvidia_file.write_bytes(with_state(node.nvidia_file.read_bytes(), mpsControlDaemonID="theirs-0badc"))
    _taken, engine = node.starts()
    assert "Deployment mps-control-daemon-theirs-0badc" in node.told.incomplete[0]
    assert node.cdi.path("theirs").read_bytes() == content
    assert "is held by claim with UID theirs" in str(prepare(node, engine, "ours", "gpu-0"))
    assert unprepare(engine, "theirs") is None
    assert node.cdi.claim_uids() == ()


@pytest.mark.parametrize(
    "data", [recorded("one-gpu")[:500], recorded("one-gpu").replace(b"gpu-0", b"gpu-1"), b'{"checksum":1,"v3":{}}']
)
def test_a_file_that_cannot_be_used_stays_and_its_claims_are_held_by_their_cdi_files(
    node: ChangingNode, data: bytes
) -> None:
    node.nvidia_leaves(node.nvidia_made("theirs", MIG))
    node.nvidia_file.write_bytes(data)
    taken, engine = node.starts()
    assert taken == TakenOver(from_files=("theirs",))
    assert node.nvidia_file.read_bytes() == data
    (told,) = node.told.incomplete
    assert f"checkpoint {node.nvidia_file} of NVIDIA's driver cannot be used" in told
    assert "theirs" in str(prepare(node, engine, "ours", MIG))
    assert unprepare(engine, "theirs") is None
    assert node.everything() == {}
    assert node.take_over().start() == TakenOver()


def test_a_second_migration_keeps_cdi_files_that_nobody_has_a_record_of(node: ChangingNode) -> None:
    _nothing, engine = node.starts()
    assert isinstance(prepare(node, engine, "first", "gpu-0"), tuple)
    assert unprepare(engine, "first") is None
    engine.stop()  # our checkpoint is there, and empty
    node.nvidia_cdi("theirs", "gpu-0")
    content = node.cdi.path("theirs").read_bytes()
    taken, engine = node.starts()
    assert taken == TakenOver(from_files=("theirs",))
    assert node.cdi.path("theirs").read_bytes() == content
    assert engine.entries()["theirs"].state is ClaimState.RECORD_LOST
    refused = str(prepare(node, engine, "ours", "gpu-0"))
    assert "held by claim with UID theirs on this node, a claim known only from its CDI file" in refused
    assert unprepare(engine, "theirs") is None
    assert node.cdi.claim_uids() == ()


def test_a_file_whose_claim_the_kubelet_does_not_have_goes_with_its_instance(node: ChangingNode) -> None:
    node.nvidia_made("forgotten", MIG)
    node.nvidia_cdi("forgotten", MIG)
    node.nvidia_cdi("used", "gpu-0")
    node.kubelet_has("used")
    taken, engine = node.starts()
    assert taken == TakenOver(from_files=("forgotten", "used"), given_up=("forgotten",))
    assert list(engine.entries()) == ["used"]
    assert node.cdi.claim_uids() == ("used",)
    assert node.everything() == {}, "the claim's instance is destroyed by the policy that makes it"


def test_what_ended_under_nvidias_driver_without_handing_over_is_given_up(node: ChangingNode) -> None:
    """The kubelet unprepared it there, which knew nothing of it: no second call comes."""
    _nothing, engine = node.starts()
    assert isinstance(prepare(node, engine, "ended", MIG), tuple)
    assert isinstance(prepare(node, engine, "runs", "gpu-0"), tuple)
    engine.stop()
    node.kubelet_has("runs")
    assert node.take_over().start() == TakenOver(), "the drivers have not changed"
    node.nvidia_leaves()
    taken, engine = node.starts()
    assert taken == TakenOver(given_up=("ended",))
    assert list(engine.entries()) == ["runs"]
    assert node.cdi.claim_uids() == ("runs",)
    assert node.everything() == {}


def test_without_the_kubelets_word_no_claim_is_given_up(node: ChangingNode) -> None:
    node.nvidia_leaves(finished("theirs", "gpu-0", node.machine.gpus[0].uuid))
    node.kubelet_state.write_bytes(b"{}")
    taken, engine = node.starts()
    assert taken == TakenOver(from_nvidia=("theirs",))
    assert list(engine.entries()) == ["theirs"]


def test_a_lost_record_ends_when_its_file_is_removed_by_hand(node: ChangingNode) -> None:
    node.nvidia_cdi("stuck", "gpu-0")
    _taken, engine = node.starts()
    assert list(engine.entries()) == ["stuck"]
    engine.stop()
    node.cdi.path("stuck").unlink()
    taken, engine = node.starts()
    assert taken == TakenOver(given_up=("stuck",))
    assert isinstance(prepare(node, engine, "ours", "gpu-0"), tuple)


def test_what_another_plugin_is_preparing_is_left_to_it(node: ChangingNode) -> None:
    _nothing, engine = node.starts()
    node.nvidia_cdi("theirs", "gpu-0")
    with engine._locks.hold(["claim-theirs"]):
        assert node.take_over().start() == TakenOver()
    assert node.take_over().start() == TakenOver(from_files=("theirs",))


def test_nothing_is_taken_from_a_driver_that_runs(node: ChangingNode) -> None:
    node.nvidia_leaves(finished("theirs", "gpu-0", node.machine.gpus[0].uuid))
    content = node.nvidia_file.read_bytes()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(node.folder / "dra.sock"))
        server.listen()
        with pytest.raises(StateError, match="NVIDIA's driver is running on this node"):
            node.take_over().start()
    assert node.nvidia_file.read_bytes() == content
    assert node.take_over().start() == TakenOver(from_nvidia=("theirs",)), "a socket that nobody serves is no driver"


def test_a_crash_before_the_file_is_moved_changes_nothing(node: ChangingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.nvidia_leaves(node.nvidia_made("theirs", MIG))

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(StateError, match="would be taken over again"):
            node.take_over().start()
    assert node.take_over().start() == TakenOver()
    assert not node.nvidia_file.exists()
    assert list(node.checkpoint().entries()) == ["theirs"]


def test_hardware_that_does_not_answer_keeps_no_claim_from_being_held(node: ChangingNode) -> None:
    node.nvidia_leaves(node.nvidia_made("theirs", MIG), finished("whole", "gpu-0", node.machine.gpus[0].uuid))
    node.silent = True
    assert node.take_over().start() == TakenOver(from_nvidia=("theirs", "whole"))
    entries = node.checkpoint().entries()
    assert (entries["theirs"].state, entries["whole"].state) == (ClaimState.RECORD_LOST, ClaimState.COMPLETED)
    engine = node.engine()
    assert unprepare(engine, "theirs") is None
    assert node.everything() == {}


# -- and back ----------------------------------------------------------------------------------------------------------


def test_claims_are_handed_over_as_nvidias_driver_has_them(node: ChangingNode) -> None:
    node.nvidia_leaves(node.nvidia_made("theirs", MIG))
    take_over = node.take_over(hand_over=True)
    take_over.start()
    engine = node.engine()
    assert isinstance(prepare(node, engine, "whole", "gpu-0"), tuple)
    assert isinstance(prepare(node, engine, "beside", BESIDE), tuple)
    assert unprepare(engine, "theirs") is None
    engine.stop()
    files = node.cdi.claim_uids()
    take_over.stop()
    found = decode(node.nvidia_file.read_bytes(), DRIVER)
    claims = {claim.uid: claim for claim in found.claims}
    assert found.boot_id == BOOT
    assert sorted(claims) == ["beside", "whole"], "the unprepared one must not come back"
    (beside,) = claims["beside"].devices
    (instance,) = node.control.instances(node.machine.gpus[1].uuid)
    assert beside.mig is not None
    assert (beside.mig.gpu_instance, beside.mig.uuid) == (instance.id, instance.compute_instances[0].uuid)
    assert claims["whole"].devices[0].gpu_uuid == node.machine.gpus[0].uuid
    assert [claim.state for claim in found.claims] == [NvidiaState.COMPLETED] * 2
    assert not node.checkpoint().entries(), "or a later start would hold what NVIDIA's driver has given up"
    assert node.cdi.claim_uids() == files, "pods go on with their CDI files"
    taken, engine = node.starts()
    assert taken == TakenOver(from_nvidia=("beside", "whole"))
    assert str(engine.entries()["whole"].ref) == "default/whole:whole"


def test_time_slices_are_handed_over(node: ChangingNode) -> None:
    node.gates = frozenset(("TimeSlicingSettings",))
    take_over = node.take_over(hand_over=True)
    take_over.start()
    engine = node.engine()
    long = config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}})
    node.claims.add(claim("sliced", result("gpu-0"), configs=[opaque(long)]))
    assert isinstance(engine.prepare([ref("sliced")], timeout=10)["sliced"], tuple)
    assert isinstance(prepare(node, engine, "plain", "gpu-1"), tuple)
    engine.stop()
    take_over.stop()
    claims = decode(node.nvidia_file.read_bytes(), DRIVER).claims
    assert {each.uid: each.time_sliced for each in claims} == {"sliced": True, "plain": False}
    assert node.time_slices.interval(node.machine.gpus[0].uuid) is TimeSliceInterval.LONG, "its pods run on"


def test_nothing_is_handed_over_while_another_plugin_serves_the_node(node: ChangingNode) -> None:
    old, new = node.take_over(hand_over=True), node.take_over(hand_over=True)
    old.start()
    engine = node.engine()
    assert isinstance(prepare(node, engine, "ours", "gpu-0"), tuple)
    new.start()
    old.stop()
    assert not node.nvidia_file.exists()
    assert list(node.checkpoint().entries()) == ["ours"]
    new.stop()
    assert node.nvidia_file.exists()


def test_without_the_setting_nothing_is_handed_over(node: ChangingNode) -> None:
    take_over = node.take_over()
    take_over.start()
    assert isinstance(prepare(node, node.engine(), "ours", "gpu-0"), tuple)
    take_over.stop()
    assert not node.nvidia_file.exists()
    assert list(node.checkpoint().entries()) == ["ours"]


def test_a_claim_between_two_states_is_handed_over_as_begun(node: ChangingNode) -> None:
    take_over = node.take_over(hand_over=True)
    take_over.start()
    assert isinstance(prepare(node, node.engine(), "half", "gpu-0"), tuple)
    checkpoint = node.checkpoint()
    checkpoint.update(put=[replace(checkpoint.entries()["half"], state=ClaimState.UNPREPARE_STARTED)])
    take_over.stop()
    (half,) = decode(node.nvidia_file.read_bytes(), DRIVER).claims
    assert (half.state, half.devices, half.name) == (NvidiaState.STARTED, (), "half")


def test_a_machine_that_does_not_answer_keeps_the_claims_here(node: ChangingNode) -> None:
    take_over = node.take_over(hand_over=True)
    take_over.start()
    assert isinstance(prepare(node, node.engine(), "ours", "gpu-0"), tuple)
    node.silent = True
    take_over.stop()
    assert "claims are not handed over" in node.told.incomplete[0]
    assert not node.nvidia_file.exists()
    assert list(node.checkpoint().entries()) == ["ours"]


def test_a_plugin_that_hangs_at_handing_over_does_not_hold_up_its_successor(node: ChangingNode) -> None:
    old, new = node.take_over(hand_over=True), node.take_over(seconds=0.1)
    old.start()
    assert old._presence is not None
    fcntl.flock(old._presence, fcntl.LOCK_EX)
    with pytest.raises(LockBusy, match="has been handing its claims over"):
        new.start()
    fcntl.flock(old._presence, fcntl.LOCK_SH)
    new.start()
    new.stop()
    old.stop()
