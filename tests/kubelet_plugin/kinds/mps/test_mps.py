"""MPS through the engine: groups of claims, what containers see, rollback, repetition, recovery, what is left."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from dra_driver.cdi.spec import ContainerEdits, Mount
from dra_driver.errors import HardwareError
from dra_driver.mps.errors import SupervisorUnavailable
from dra_driver.mps.group import GroupState, MpsGroup, folders_of
from kubelet_plugin.claims.entry import ClaimState, StepRecord
from kubelet_plugin.kinds.mps.step import MPS_GROUP
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.kinds.mps.claims import LIMITS, mig_mps, mps, mps_for, slices
from tests.kubelet_plugin.kinds.mps.fake import failed
from tests.kubelet_plugin.prepare.calls import prepare, unprepare
from tests.kubelet_plugin.prepare.node import claim, config, opaque, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode

MIG, OTHER_MIG = "gpu-1-mig-1g10gb-19-0", "gpu-1-mig-3g40gb-9-4"


def uuids(node: SimulatedNode) -> list[str]:
    return [gpu.uuid for gpu in node.machine.gpus]


def running(node: SimulatedNode) -> list[MpsGroup]:
    return [status.group for status in node.supervisor.now()]


def group_id(claim_uid: str, *device_uuids: str) -> str:
    return f"{claim_uid}-{hashlib.sha256(','.join(sorted(device_uuids)).encode()).hexdigest()[:5]}"


def edits(node: SimulatedNode, uid: str, device: str) -> ContainerEdits:
    spec = node.cdi.read(uid)
    assert spec is not None
    return next(each.edits for each in spec.devices if each.name == f"{uid}-{device}")


def of_mps(found: ContainerEdits) -> tuple[list[str], list[Mount]]:
    env = [each for each in found.env if "MPS" in each]
    return env, [mount for mount in found.mounts if mount.container_path in ("/dev/shm", "/tmp/nvidia-mps")]


# -- one claim ---------------------------------------------------------------------------------------------------------


def test_a_claim_has_a_group_and_containers_see_what_nvidias_driver_shows(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    asked = mps(defaultActiveThreadPercentage=50, defaultPinnedDeviceMemoryLimit="10Gi", multiUser=True)
    node.claims.add(claim("u1", result("gpu-1"), configs=[asked]))
    (device,) = prepare(engine, "u1")
    gpu = uuids(node)[1]
    assert running(node) == [MpsGroup(group_id("u1", gpu), (gpu,), (gpu,), 50, {gpu: 10240}, True)]
    folders = folders_of(node.plugin_folder, group_id("u1", gpu))
    options = ("rw", "nosuid", "nodev", "bind")
    assert of_mps(edits(node, "u1", device.device_name)) == (
        ["CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps"],
        [Mount(str(folders.shm), "/dev/shm", options), Mount(str(folders.pipe), "/tmp/nvidia-mps", options)],
    )
    assert [step.kind for step in engine.entries()["u1"].steps] == [MPS_GROUP, "CDIFile"]
    unprepare(engine, "u1")
    assert (node.supervisor.ids(), node.left_overs()) == ([], [])


def test_all_devices_with_one_configuration_are_one_group(node: SimulatedNode, engine: PrepareEngine) -> None:
    ordered = sorted(uuids(node))
    limits = {str(ordered.index(uuids(node)[0])): "8Gi", uuids(node)[2]: "1500M"}
    asked = mps(defaultPinnedDeviceMemoryLimit="1Gi", **{LIMITS: limits})
    node.claims.add(claim("u1", result("gpu-2", "b"), result("gpu-0", "a"), result("gpu-1", "c"), configs=[asked]))
    prepare(engine, "u1")
    (group,) = running(node)
    assert (group.devices, group.exclusive_gpus) == (tuple(ordered), tuple(ordered))
    assert group.id == group_id("u1", *ordered)
    assert group.pinned_memory_mib == dict(zip(uuids(node), (8192, 1024, 1430), strict=True))
    assert {of_mps(edits(node, "u1", f"gpu-{minor}"))[1][1].host_path for minor in range(3)} == {
        str(folders_of(node.plugin_folder, group.id).pipe)
    }


def test_time_slices_and_mps_in_one_claim(node: SimulatedNode, engine: PrepareEngine) -> None:
    """NVIDIA's gpu-test5."""
    asked = [slices(["ts-gpu"]), mps(["mps-gpu"], defaultActiveThreadPercentage=50)]
    node.claims.add(claim("u1", result("gpu-0", "ts-gpu"), result("gpu-1", "mps-gpu"), configs=asked))
    prepare(engine, "u1")
    (group,) = running(node)
    assert group.devices == (uuids(node)[1],)
    assert of_mps(edits(node, "u1", "gpu-0")) == ([], [])
    assert of_mps(edits(node, "u1", "gpu-1"))[0] == ["CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps"]


def test_the_hosts_pipe_is_not_mounted_as_well(node: SimulatedNode, engine: PrepareEngine) -> None:
    (node.host / "tmp/nvidia-mps").mkdir(parents=True)
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps()]), claim("u2", result("gpu-0")))
    for uid in ("u1", "u2"):
        prepare(engine, uid)
        spec = node.cdi.read(uid)
        assert spec is not None
        assert [mount for mount in spec.edits.mounts if "nvidia-mps" in mount.container_path] == []
    assert of_mps(edits(node, "u2", "gpu-0")) == ([], [])


def test_admin_access_changes_nothing(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1", adminAccess=True), configs=[mps()]))
    prepare(engine, "u1")
    assert (running(node), of_mps(edits(node, "u1", "gpu-1"))) == ([], ([], []))


def test_a_claim_without_mps_needs_no_supervisor(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.supervisor.away = True
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result(MIG.replace("-1-", "-2-", 1))))
    for uid in ("u1", "u2"):
        prepare(engine, uid)
        unprepare(engine, uid)


# -- MIG devices -------------------------------------------------------------------------------------------------------


def test_mig_devices_that_the_claim_makes(node: SimulatedNode, engine: PrepareEngine) -> None:
    """Their UUIDs are known only when they are there; the compute mode of the GPU stays as it is."""
    asked = mig_mps(defaultPinnedDeviceMemoryLimit="5Gi", **{LIMITS: {"1": "2Gi"}})
    node.claims.add(claim("u1", result(MIG, "a"), result(OTHER_MIG, "b"), configs=[asked]))
    prepare(engine, "u1")
    made = sorted(each.compute_instances[0].uuid for each in node.everything()[uuids(node)[1]])
    (group,) = running(node)
    assert (group.devices, group.exclusive_gpus) == (tuple(made), ())
    assert group.pinned_memory_mib == {made[0]: 5120, made[1]: 2048}
    assert group.id.startswith("u1-")
    assert of_mps(edits(node, "u1", MIG)) == of_mps(edits(node, "u1", OTHER_MIG)) != ([], [])
    unprepare(engine, "u1")
    assert (node.supervisor.ids(), node.everything()) == ([], {})


def test_a_mig_device_that_is_made_anew_gets_a_group_of_its_new_uuid(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result(MIG), configs=[mig_mps()]))
    prepare(engine, "u1")
    (before,) = running(node)
    gpu = uuids(node)[1]
    (instance,) = node.control.instances(gpu)
    node.control.destroy_compute_instance(gpu, instance.id, instance.compute_instances[0].id)
    node.control.destroy_gpu_instance(gpu, instance.id)
    prepare(engine, "u1")
    (after,) = running(node)
    assert after.id == before.id
    assert after.devices == (node.control.instances(gpu)[0].compute_instances[0].uuid,) != before.devices
    unprepare(engine, "u1")
    assert (node.supervisor.ids(), node.everything()) == ([], {})


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_without_a_supervisor_nothing_is_changed(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.supervisor.away = True
    node.claims.add(claim("u1", result(MIG), configs=[mig_mps()]))
    with pytest.raises(SupervisorUnavailable, match="no MPS supervisor") as caught:
        prepare(engine, "u1")
    assert caught.value.retryable
    assert (node.everything(), engine.entries(), node.supervisor.ids()) == ({}, {}, [])


def test_a_daemon_that_does_not_start_is_rolled_back(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.supervisor.broken = failed("u1")
    node.claims.add(claim("u1", result(MIG), configs=[mig_mps()]))
    with pytest.raises(HardwareError, match="does not answer"):
        prepare(engine, "u1")
    assert (node.everything(), engine.entries(), node.supervisor.ids()) == ({}, {}, [])
    node.supervisor.broken = None
    prepare(engine, "u1")


def test_a_group_is_not_forgotten_while_the_supervisor_is_away(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(MIG), configs=[mig_mps()]))
    prepare(engine, "u1")
    node.supervisor.away = True
    with pytest.raises(SupervisorUnavailable):
        unprepare(engine, "u1")
    assert engine.entries()["u1"].state is ClaimState.UNPREPARE_STARTED
    assert node.everything() != {}, "the daemon still uses it"
    node.supervisor.away = False
    unprepare(engine, "u1")
    assert (node.everything(), engine.entries(), node.supervisor.ids()) == ({}, {}, [])


def test_where_nothing_is_left_no_supervisor_is_needed(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps()]))
    prepare(engine, "u1")
    node.supervisor.stop(running(node)[0].id)
    node.supervisor.away = True
    unprepare(engine, "u1")
    assert engine.entries() == {}


# -- again -------------------------------------------------------------------------------------------------------------


def test_a_repetition_starts_nothing_and_shows_the_same(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps(defaultActiveThreadPercentage=50)]))
    first, seen = prepare(engine, "u1"), of_mps(edits(node, "u1", "gpu-1"))
    node.supervisor.calls.clear()
    node.gates = frozenset()
    node.claims.add(claim("u1", result("gpu-1")))  # its configuration was read, and is not asked for again
    assert prepare(engine, "u1") == first
    assert set(node.supervisor.calls) == {"groups"}
    assert of_mps(edits(node, "u1", "gpu-1")) == seen


def test_a_dead_daemon_is_started_again_by_a_repetition(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps()]))
    prepare(engine, "u1")
    (group,) = running(node)
    node.supervisor.states[group.id] = GroupState.DEAD
    node.supervisor.calls.clear()
    with pytest.raises(HardwareError, match="is dead"):
        prepare(engine, "u1")  # the fake's stays dead
    assert f"start {group.id}" in node.supervisor.calls
    assert "u1" in engine.entries(), "containers may use it"


@pytest.mark.parametrize("device", ["gpu-1", MIG])
def test_a_new_plugin_leaves_what_runs_alone_and_starts_what_does_not(
    device: str, node: SimulatedNode, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result(device), configs=[mps_for(device, defaultActiveThreadPercentage=20)]))
    engines.append(node.engine())
    prepare(engines[0], "u1")
    before = running(node)
    node.supervisor.calls.clear()
    engines.append(node.engine())
    assert set(node.supervisor.calls) == {"groups"}
    node.supervisor.stop(before[0].id)
    engines.append(node.engine())
    assert running(node) == before


def test_after_a_reboot_nothing_is_stopped(node: SimulatedNode, engines: list[PrepareEngine]) -> None:
    """No daemon outlives it, and what the supervisor finds of one it removes itself."""
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps()]))
    engines.append(node.engine())
    prepare(engines[0], "u1")
    node.supervisor.stop(running(node)[0].id)
    node.supervisor.calls.clear()
    node.supervisor.away = True
    engines.append(node.engine("boot-2"))
    assert (engines[1].entries(), node.supervisor.calls) == ({}, [])


def test_a_claim_whose_record_is_lost_is_unprepared_as_a_whole(
    node: SimulatedNode, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps()]), claim("u2", result("gpu-0"), configs=[mps()]))
    engines.append(node.engine())
    prepare(engines[0], "u1")
    prepare(engines[0], "u2")
    kept = engines[0].entries()["u2"]
    (node.state / "checkpoint.json").write_text("{")
    engines.append(node.engine())
    assert engines[1].entries()["u1"].state is ClaimState.RECORD_LOST
    unprepare(engines[1], "u1")
    assert [group.id for group in running(node)] == [kept.steps[0].arguments["group"]]


def test_a_claim_whose_record_is_lost_is_recorded_again(node: SimulatedNode, engines: list[PrepareEngine]) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[mps(multiUser=True)]))
    engines.append(node.engine())
    first = prepare(engines[0], "u1")
    entry = engines[0].entries()["u1"]
    (node.state / "checkpoint.json").write_text("{")
    engines.append(node.engine())
    node.supervisor.calls.clear()
    assert prepare(engines[1], "u1") == first
    assert engines[1].entries()["u1"] == entry
    assert set(node.supervisor.calls) == {"groups"}


def test_a_step_of_a_lost_record_is_repeated_as_nothing(node: SimulatedNode, engine: PrepareEngine) -> None:
    """As a claim that was NVIDIA's driver's has one."""
    node.claims.add(claim("u1", result("gpu-1")))
    prepare(engine, "u1")
    entry = engine.entries()["u1"]
    node.checkpoint().update(put=[replace(entry, steps=(StepRecord(MPS_GROUP), *entry.steps))])
    node.supervisor.away = True
    prepare(engine, "u1")
    unprepare(engine, "u1")
    assert engine.entries() == {}


def test_a_class_may_ask_for_it(node: SimulatedNode, engine: PrepareEngine) -> None:
    asked = opaque(config(sharing={"strategy": "MPS"}), source="FromClass")
    node.claims.add(claim("u1", result("gpu-0"), configs=[asked]))
    prepare(engine, "u1")
    assert len(running(node)) == 1
