"""The table of docs/dev/sharing-modes.md, row by row, and shares of devices that are MPS replicas."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from api.claim_config import SharingStrategy
from dra_driver.errors import ConflictingConfig, DeviceInUse, HardwareError, UnsupportedConfig
from dra_driver.kube.interface import Obj
from dra_driver.mps.group import GroupState, MpsGroup
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.kinds.mps.claims import ONE, OTHER, THIRD, Shared, mig_mps, mps, mps_for, slices
from tests.kubelet_plugin.kinds.mps.fake import failed
from tests.kubelet_plugin.prepare.calls import prepare, unprepare
from tests.kubelet_plugin.prepare.node import claim, opaque, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode

MIG, OTHER_MIG = "gpu-1-mig-1g10gb-19-0", "gpu-1-mig-1g10gb-19-1"
GPU_MEMORY = 81559


@pytest.fixture
def shared(node: SimulatedNode) -> Shared:
    """All GPUs are four MPS replicas each."""
    node.sharing = shared = Shared()
    return shared


def share(uid: str, share_id: str, device: str = "gpu-1", configs: Sequence[Obj] = ()) -> Obj:
    return claim(uid, result(device, shareID=share_id), configs=configs)


def refusal(engine: PrepareEngine, uid: str) -> str:
    before = engine.entries()
    with pytest.raises((ConflictingConfig, UnsupportedConfig)) as caught:
        prepare(engine, uid)
    assert engine.entries() == before
    assert caught.value.retryable == ("beside claim" in str(caught.value)), "only another claim's end can help"
    return str(caught.value)


def running(node: SimulatedNode) -> list[MpsGroup]:
    return [status.group for status in node.supervisor.now()]


# -- between claims ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", [[], [slices()], [mps()]])
@pytest.mark.parametrize("mine", [[], [slices()], [mps()]])
def test_a_device_that_is_held_but_not_as_a_share(
    theirs: list[Obj], mine: list[Obj], node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=theirs), claim("u2", result("gpu-1"), configs=mine))
    prepare(engine, "u1")
    with pytest.raises(DeviceInUse, match="held by claim default/u1"):
        prepare(engine, "u2")


@pytest.mark.parametrize("theirs", [[], [slices()]])
@pytest.mark.parametrize("mine", [[], [slices()]])
def test_plain_shares_and_shares_with_one_interval(
    theirs: list[Obj], mine: list[Obj], node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(share("u1", ONE, configs=theirs), share("u2", OTHER, configs=mine))
    prepare(engine, "u1")
    prepare(engine, "u2")
    assert node.supervisor.calls == []


@pytest.mark.parametrize("theirs", [[], [slices()]])
def test_mps_beside_a_share_without(
    theirs: list[Obj], node: SimulatedNode, shared: Shared, engine: PrepareEngine
) -> None:
    shared.offer(SharingStrategy.TIME_SLICING, 4)
    node.claims.add(share("u1", ONE, configs=theirs), share("u2", OTHER))
    prepare(engine, "u1")
    shared.offer(SharingStrategy.MPS, 4)
    said = refusal(engine, "u2")
    assert said.startswith(
        "requests: a share of gpu-1 cannot be had beside claim default/u1:u1 (claim default/u1:u1 uses gpu-1 without"
    )
    assert "claim default/u2:u2 would use it through MPS group replicas-" in said
    assert "wait until claim default/u1:u1 has ended, or ask for a device of another GPU" in said
    assert node.supervisor.ids() == []
    unprepare(engine, "u1")
    prepare(engine, "u2")


@pytest.mark.parametrize(
    ("mine", "what"), [([], "requests: a share of gpu-1"), ([slices()], "sharing.strategy: TimeSlicing")]
)
def test_a_share_without_mps_beside_one_with(
    mine: list[Obj], what: str, node: SimulatedNode, shared: Shared, engine: PrepareEngine
) -> None:
    node.claims.add(share("u1", ONE), share("u2", OTHER, configs=mine))
    prepare(engine, "u1")
    shared.offer(SharingStrategy.TIME_SLICING, 4)
    said = refusal(engine, "u2")
    assert f"{what} cannot be had beside claim default/u1:u1 (claim default/u1:u1 uses gpu-1 through MPS" in said
    assert "claim default/u2:u2 would use it without MPS" in said
    assert len(running(node)) == 1


def test_replicas_share_one_group_which_the_last_one_takes_away(
    node: SimulatedNode, shared: Shared, engine: PrepareEngine
) -> None:
    node.claims.add(share("u1", ONE), share("u2", OTHER), share("u3", THIRD, "gpu-2"))
    for uid in ("u1", "u2", "u3"):
        prepare(engine, uid)
    gpus = [gpu.uuid for gpu in node.machine.gpus]
    wanted = [
        MpsGroup(f"replicas-{gpu.removeprefix('GPU-')}", (gpu,), (gpu,), 25, {gpu: GPU_MEMORY // 4}) for gpu in gpus[1:]
    ]
    assert running(node) == sorted(wanted, key=lambda group: group.id)
    one, other = (
        [device.edits.mounts for device in spec.devices] if (spec := node.cdi.read(uid)) else [] for uid in ("u1", "u2")
    )
    assert one == other != [()]
    unprepare(engine, "u1")
    assert len(running(node)) == 2, "the second is still in it"
    unprepare(engine, "u2")
    assert running(node) == [wanted[1]]
    unprepare(engine, "u3")
    assert node.supervisor.ids() == []


def test_who_comes_later_takes_the_group_as_it_runs(
    node: SimulatedNode, shared: Shared, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    """Other settings are in force by now; the pods that are there go on with theirs."""
    node.claims.add(share("u1", ONE), share("u2", OTHER), share("u3", THIRD))
    prepare(engine, "u1")
    before = running(node)
    shared.offer(SharingStrategy.MPS, 2)
    prepare(engine, "u2")
    assert running(node) == before
    unprepare(engine, "u1")
    engines.append(node.engine())
    assert running(node) == before
    unprepare(engine, "u2")
    prepare(engine, "u3")
    assert running(node)[0].active_thread_percentage == 50


def test_replica_devices_share_one_group_too(node: SimulatedNode, shared: Shared, engine: PrepareEngine) -> None:
    """They are what a server without consumable capacity has in place of shares."""
    node.claims.add(claim("u1", result("gpu-1-replica-0")), claim("u2", result("gpu-1-replica-3")))
    node.claims.add(claim("u3", result("gpu-1-replica-2"), configs=[slices()]))
    prepare(engine, "u1")
    prepare(engine, "u2")
    (group,) = running(node)
    assert group.id == f"replicas-{node.machine.gpus[1].uuid.removeprefix('GPU-')}"
    assert "whose settings are the administrator's (remove sharing" in refusal(engine, "u3")
    unprepare(engine, "u1")
    assert running(node) == [group], "the second is still in it"
    unprepare(engine, "u2")
    assert running(node) == []


def test_a_rollback_leaves_the_others_group(node: SimulatedNode, shared: Shared, engine: PrepareEngine) -> None:
    node.claims.add(share("u1", ONE), share("u2", OTHER))
    prepare(engine, "u1")
    node.supervisor.broken = failed("replicas")
    with pytest.raises(HardwareError, match="does not answer"):
        prepare(engine, "u2")
    assert len(running(node)) == 1
    assert set(engine.entries()) == {"u1"}


def test_nobody_is_sent_into_a_stuck_group(node: SimulatedNode, shared: Shared, engine: PrepareEngine) -> None:
    node.claims.add(share("u1", ONE), share("u2", OTHER))
    prepare(engine, "u1")
    (group,) = running(node)
    node.supervisor.become(group.id, GroupState.WEDGED)
    node.supervisor.calls.clear()
    with pytest.raises(HardwareError, match=f"MPS group {group.id} is wedged: a test says Wedged") as caught:
        prepare(engine, "u2")
    assert caught.value.retryable
    assert node.supervisor.calls == ["groups"]


@pytest.mark.parametrize(("first", "second"), [("gpu-1", MIG), (MIG, "gpu-1")])
def test_a_gpu_and_its_mig_devices(first: str, second: str, node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(*(claim(device, result(device), configs=[mps_for(device)]) for device in (first, second)))
    prepare(engine, first)
    with pytest.raises(DeviceInUse, match=f"held by claim default/{first}"):
        prepare(engine, second)


@pytest.mark.parametrize("mine", [[], [slices(kind="MigDeviceConfig")], [mig_mps()]])
def test_mig_devices_of_one_gpu_do_not_mind_each_other(
    mine: list[Obj], node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result(MIG), configs=[mig_mps()]))
    node.claims.add(claim("u2", result(OTHER_MIG), configs=mine))
    prepare(engine, "u1")
    prepare(engine, "u2")
    assert all(group.exclusive_gpus == () for group in running(node))


def test_admin_access_keeps_nobody_out_and_is_kept_out_by_nobody(
    node: SimulatedNode, shared: Shared, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result("gpu-1", adminAccess=True)), share("u2", OTHER))
    node.claims.add(claim("u3", result("gpu-1", adminAccess=True)))
    for uid in ("u1", "u2", "u3"):
        prepare(engine, uid)
    assert len(running(node)) == 1


def test_what_a_lost_record_held_it_through_keeps_nobody_out(
    node: SimulatedNode, shared: Shared, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(share("u1", ONE), share("u2", OTHER))
    prepare(engine, "u1")
    before = running(node)
    (node.state / "checkpoint.json").write_text("{")
    engines.append(node.engine())
    prepare(engines[1], "u2")
    unprepare(engines[1], "u2")
    assert running(node) == before, "the one with the lost record may be in it"
    unprepare(engines[1], "u1")
    assert node.supervisor.ids() == []


# -- within a claim ----------------------------------------------------------------------------------------------------


def test_mps_for_a_share_that_is_no_mps_replica(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(share("u1", ONE, configs=[mps()]))
    said = refusal(engine, "u1")
    assert (
        "config[0].opaque.parameters.sharing.strategy: MPS cannot be asked for on gpu-1, of which claim default/u1:u1 has "
        "a share: it is not offered as MPS replicas"
    ) in said
    assert "ask for a whole device, or have the administrator offer MPS replicas" in said


@pytest.mark.parametrize(("asked", "value"), [(slices(), "TimeSlicing"), (mps(), "MPS")])
def test_settings_for_a_share_of_mps_replicas(
    asked: Obj, value: str, node: SimulatedNode, shared: Shared, engine: PrepareEngine
) -> None:
    node.claims.add(share("u1", ONE, configs=[asked]))
    said = refusal(engine, "u1")
    assert f"sharing.strategy: {value} cannot be asked for on gpu-1, which is offered as 4 MPS replicas" in said
    assert "remove sharing" in said


def test_a_configuration_without_sharing_is_fine(node: SimulatedNode, shared: Shared, engine: PrepareEngine) -> None:
    plain = opaque({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig"})
    node.claims.add(share("u1", ONE, configs=[plain]))
    prepare(engine, "u1")
    assert len(running(node)) == 1


def test_two_configurations_with_the_same_settings_are_one_group(node: SimulatedNode, engine: PrepareEngine) -> None:
    asked = [mps(["a"], defaultActiveThreadPercentage=50), mps(["b"], defaultActiveThreadPercentage=50)]
    node.claims.add(claim("u1", result("gpu-0", "a"), result("gpu-1", "b"), configs=asked))
    prepare(engine, "u1")
    assert [len(group.devices) for group in running(node)] == [2]


def test_two_different_mps_configurations(node: SimulatedNode, engine: PrepareEngine) -> None:
    asked = [mps(["a"], defaultActiveThreadPercentage=50), mps(["b"])]
    node.claims.add(claim("u1", result("gpu-0", "a"), result("gpu-1", "b"), configs=asked))
    said = refusal(engine, "u1")
    assert (
        "asks for two MPS groups, for gpu-1 (request b) and for gpu-0 (request a), and a container reaches one" in said
    )
    assert "ask for them in two claims" in said


def test_a_gpu_and_a_mig_device_through_mps(node: SimulatedNode, engine: PrepareEngine) -> None:
    asked = [mps(["a"]), mig_mps(["b"])]
    node.claims.add(claim("u1", result("gpu-0", "a"), result(MIG, "b"), configs=asked))
    assert "asks for two MPS groups" in refusal(engine, "u1")


def test_shares_of_two_devices_that_are_mps_replicas(
    node: SimulatedNode, shared: Shared, engine: PrepareEngine
) -> None:
    both = [result("gpu-0", shareID=ONE), result("gpu-1", shareID=OTHER)]
    node.claims.add(claim("u1", *both))
    assert "asks for two MPS groups" in refusal(engine, "u1")
    twice = [result("gpu-1", shareID=ONE), result("gpu-1", shareID=OTHER)]
    node.claims.add(claim("u2", *twice))
    prepare(engine, "u2")
    assert len(running(node)) == 1
