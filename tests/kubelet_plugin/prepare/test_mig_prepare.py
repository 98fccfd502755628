"""MIG devices through the engine: made, given to containers, taken away, refused; what broke in NVIDIA's driver does not.

The hardware is the strict fake of tests.kubelet_plugin.kinds.mig.fake, on recorded machines.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from api.mig_policy import MigMode
from dra_driver.devices.policy import MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.errors import DeviceInUse, DeviceNotFound, DriverError, HardwareError, UnsupportedConfig
from dra_driver.hardware.model import ComputeInstance
from dra_driver.hardware.nvml import GpuBusy, InstanceInUse, MigModePending, NvmlCallError, PlacementOccupied
from dra_driver.hardware.nvml.codes import Return
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.claims.model import PreparedDevice
from kubelet_plugin.prepare.admission import OverlappingDevices
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.devices.recorded import recorded
from tests.kubelet_plugin.kinds.mig.fake import Fault
from tests.kubelet_plugin.prepare.calls import prepare, unprepare
from tests.kubelet_plugin.prepare.node import TestNode, claim, config, opaque, ref, result

HOPPER, AMPERE = "h100-sxm5-80gb", "a100-sxm4-40gb"
ONE_G, OTHER_1G, THREE_G, FOUR_G = (
    "gpu-1-mig-1g10gb-19-0",
    "gpu-1-mig-1g10gb-19-1",
    "gpu-1-mig-3g40gb-9-4",
    "gpu-1-mig-4g40gb-5-0",
)


def there(node: TestNode) -> list[tuple[str, str, int]]:
    """(GPU, profile, start) of every instance on the hardware."""
    return [
        (gpu, each.profile_name, each.placement.start)
        for gpu, instances in sorted(node.fake_mig.everything().items())
        for each in instances
    ]


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    return TestNode(tmp_path, on=recorded(HOPPER, 4))


@pytest.fixture
def engine(node: TestNode, engines: list[PrepareEngine]) -> PrepareEngine:
    engines.append(node.engine())
    return engines[0]


def policy(**rule: object) -> MigPolicy:
    return MigPolicy((MigRule(**rule),))  # type: ignore[arg-type]


# -- made and taken away ----------------------------------------------------------------------------------------------


def test_an_instance_is_made_given_to_containers_and_taken_away(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(THREE_G)))
    assert prepare(engine, "u1") == (
        PreparedDevice(("gpu",), "node-0", THREE_G, (f"k8s.gpu.nvidia.com/claim=u1-{THREE_G}",)),
    )
    assert there(node) == [("GPU-1", "3g.40gb", 4)]
    assert node.device_nodes("u1") == [
        "/dev/nvidia1",
        "/dev/nvidia-caps/nvidia-cap1010",
        "/dev/nvidia-caps/nvidia-cap1011",
    ]
    steps = engine.entries()["u1"].steps
    assert [step.kind for step in steps] == ["MigModeOn", "GpuInstance", "ComputeInstance", "CDIFile"]
    assert dict(steps[2].result) == {"gpuInstance": "1", "computeInstance": "0", "uuid": "MIG-0001"}
    unprepare(engine, "u1")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()
    assert node.left_overs() == []


def test_prepare_twice_changes_nothing(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    first = prepare(engine, "u1")
    checkpoint = (node.state / "checkpoint.json").stat()
    assert prepare(engine, "u1") == first
    assert node.fake_mig.calls.count("create_gpu_instance") == 1
    assert (node.state / "checkpoint.json").stat().st_ino == checkpoint.st_ino


def test_four_profiles_of_one_gpu_in_one_claim(node: TestNode, engine: PrepareEngine) -> None:
    names = ["gpu-2-mig-1g10gb-19-0", "gpu-2-mig-1g20gb-15-2", "gpu-2-mig-3g40gb-9-4", "gpu-2-mig-1g10gb-me-20-1"]
    node.claims.add(claim("u1", *(result(name, f"r{number}") for number, name in enumerate(names))))
    assert [device.device_name for device in prepare(engine, "u1")] == names
    assert [start for _gpu, _profile, start in there(node)] == [0, 1, 2, 4]
    assert node.fake_mig.calls.count("set_mode") == 1
    unprepare(engine, "u1")
    assert there(node) == []
    assert node.fake_mig.calls.count("set_mode") == 2


def test_a_claim_with_two_mig_devices_of_one_gpu_is_unprepared(node: TestNode, engine: PrepareEngine) -> None:
    """NVIDIA's driver turns MIG mode off after the first of them and gets stuck there, for ever."""
    node.claims.add(claim("u1", result(ONE_G, "a"), result(THREE_G, "b")))
    prepare(engine, "u1")
    unprepare(engine, "u1")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()


def test_mode_goes_off_with_the_last_instance_of_all_claims(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result(THREE_G)))
    prepare(engine, "u1")
    prepare(engine, "u2")
    unprepare(engine, "u1")
    assert node.fake_mig.enabled() == {"GPU-1"}
    unprepare(engine, "u2")
    assert node.fake_mig.enabled() == set()


def test_mode_stays_on_for_what_others_made_and_where_the_policy_keeps_it(
    node: TestNode, engines: list[PrepareEngine]
) -> None:
    node.policy = policy(selector=GpuSelector(minors=(1,)), keep_mode=True)
    engine = node.engine()
    engines.append(engine)
    node.fake_mig.by_hand("GPU-2", 9, 4)
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result("gpu-2-mig-1g10gb-19-0")))
    prepare(engine, "u1")
    prepare(engine, "u2")
    unprepare(engine, "u1", "u2")
    assert node.fake_mig.enabled() == {"GPU-1", "GPU-2"}
    assert there(node) == [("GPU-2", "3g.40gb", 4)]


def test_a_client_that_holds_the_gpu_does_not_hold_up_the_unprepare(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result(ONE_G)))
    prepare(engine, "u1")
    node.fake_mig.busy.add("GPU-1")
    unprepare(engine, "u1")
    assert there(node) == []
    assert node.fake_mig.enabled() == {"GPU-1"}
    prepare(engine, "u2")
    node.fake_mig.busy.clear()
    unprepare(engine, "u2")
    assert node.fake_mig.enabled() == set()


def test_mode_on_of_a_busy_gpu_is_a_retryable_error(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    node.fake_mig.busy.add("GPU-1")
    with pytest.raises(GpuBusy, match="GPU-1") as caught:
        prepare(engine, "u1")
    assert caught.value.retryable
    assert not engine.entries()
    node.fake_mig.busy.clear()
    prepare(engine, "u1")


def test_an_instance_in_use_is_destroyed_by_a_later_unprepare(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    prepare(engine, "u1")
    node.fake_mig.in_use.add("MIG-0001")
    for _ in range(2):
        with pytest.raises(InstanceInUse) as caught:
            unprepare(engine, "u1")
        assert caught.value.retryable
        assert engine.entries()["u1"].state is ClaimState.UNPREPARE_STARTED
    node.fake_mig.in_use.clear()
    unprepare(engine, "u1")
    assert there(node) == []
    assert not engine.entries()


def test_graphics_nodes_come_with_graphics_profiles_only(tmp_path: Path, engines: list[PrepareEngine]) -> None:
    node = TestNode(tmp_path, on=recorded("rtx-pro-6000", 1))
    bus = node.machine.gpus[0].pci_bus_id
    (node.root / "sys/bus/pci/devices" / bus / "drm/renderD128").mkdir(parents=True)
    (node.root / "dev/dri").mkdir()
    (node.root / "dev/dri/renderD128").touch()
    table = node.root / "dev/.simulated-devices.json"
    table.write_text(table.read_text()[:-1] + ', "dri/renderD128": [226, 128]}')
    engines.append(node.engine())
    node.claims.add(
        claim("u1", result("gpu-0-mig-1g24gb-gfx-47-0")),
        claim("u2", result("gpu-0-mig-1g24gb-14-3")),
        claim("u3", result("gpu-0-mig-2g48gb-5-6")),
    )
    for uid, draws in (("u1", True), ("u2", False), ("u3", False)):
        prepare(engines[0], uid)
        assert ("/dev/dri/renderD128" in node.device_nodes(uid)) is draws


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_whole_gpu_and_its_mig_devices_keep_each_other_out(node: TestNode, engine: PrepareEngine) -> None:
    """NVIDIA's driver prepares a whole GPU while a MIG device of it is prepared."""
    node.claims.add(claim("mig", result(ONE_G)), claim("whole", result("gpu-1")))
    prepare(engine, "mig")
    with pytest.raises(DeviceInUse, match=f"gpu-1 cannot be used beside {ONE_G}, which is held by claim default/mig"):
        prepare(engine, "whole")
    unprepare(engine, "mig")
    prepare(engine, "whole")
    with pytest.raises(DeviceInUse, match=f"{ONE_G} cannot be used beside gpu-1"):
        prepare(engine, "mig")
    assert there(node) == []


def test_overlapping_placements_keep_each_other_out(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result(FOUR_G)), claim("u3", result(THREE_G)))
    prepare(engine, "u1")
    with pytest.raises(DeviceInUse, match=f"{FOUR_G} cannot be used beside {ONE_G}.*claim default/u1"):
        prepare(engine, "u2")
    prepare(engine, "u3")
    assert len(there(node)) == 2


def test_what_cannot_exist_at_once_is_refused_within_one_claim(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("u1", result("gpu-1", "a"), result(ONE_G, "b")), claim("u2", result(ONE_G, "a"), result(FOUR_G, "b"))
    )
    for uid in ("u1", "u2"):
        with pytest.raises(OverlappingDevices, match="cannot exist at once") as caught:
            prepare(engine, uid)
        assert not caught.value.retryable
    assert there(node) == []


def test_a_profile_that_the_gpu_lacks_is_refused_with_those_that_it_has(node: TestNode, engine: PrepareEngine) -> None:
    for name in ("gpu-1-mig-1g5gb-77-0", "gpu-1-mig-3g40gb-9-2"):
        node.claims.add(claim("u1", result(name)))
        with pytest.raises(DeviceNotFound) as caught:
            prepare(engine, "u1")
        assert f"device {name} does not exist: NVIDIA H100 80GB HBM3 GPU-1 has" in str(caught.value)
        assert "3g.40gb (id 9) at 0, 4" in str(caught.value)


def test_an_instance_that_no_claim_made_is_named_and_left_alone(node: TestNode, engine: PrepareEngine) -> None:
    node.fake_mig.by_hand("GPU-1", 14, 0)
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result("gpu-1")), claim("u3", result(THREE_G)))
    for uid in ("u1", "u2"):
        with pytest.raises(PlacementOccupied) as caught:
            prepare(engine, uid)
        assert "GPU instance 1, 2g.20gb at 0-1 (MIG-0001)" in str(caught.value)
        assert "adoptForeign" in str(caught.value)
    prepare(engine, "u3")
    assert there(node) == [("GPU-1", "2g.20gb", 0), ("GPU-1", "3g.40gb", 4)]
    assert not {"u1", "u2"} & set(engine.entries())


def test_the_very_same_instance_made_by_hand_is_not_taken_either(node: TestNode, engine: PrepareEngine) -> None:
    node.fake_mig.by_hand("GPU-1", 19, 0)
    node.claims.add(claim("u1", result(ONE_G)))
    with pytest.raises(PlacementOccupied, match="no claim has made"):
        prepare(engine, "u1")
    unprepare(engine, "u1")
    assert there(node) == [("GPU-1", "1g.10gb", 0)]


def test_what_the_administrator_gives_away_is_removed(node: TestNode, engines: list[PrepareEngine]) -> None:
    node.policy = policy(adopt_foreign=True)
    engines.append(node.engine())
    engine = engines[0]
    node.fake_mig.by_hand("GPU-1", 14, 0)
    node.fake_mig.by_hand("GPU-1", 14, 2)
    node.fake_mig.by_hand("GPU-2", 0, 0)
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result("gpu-2")))
    node.fake_mig.in_use.add("MIG-0001")
    with pytest.raises(InstanceInUse):
        prepare(engine, "u1")
    node.fake_mig.in_use.clear()
    prepare(engine, "u1")
    prepare(engine, "u2")
    assert there(node) == [("GPU-1", "1g.10gb", 0), ("GPU-1", "2g.20gb", 2)]
    assert node.fake_mig.enabled() == {"GPU-1"}


def test_mode_that_is_on_without_instances_is_turned_off_for_a_whole_gpu(node: TestNode, engine: PrepareEngine) -> None:
    node.fake_mig.turn_on("GPU-1")
    node.claims.add(claim("u1", result("gpu-1")))
    prepare(engine, "u1")
    assert node.fake_mig.enabled() == set()
    assert [step.kind for step in engine.entries()["u1"].steps] == ["MigModeOff", "CDIFile"]
    unprepare(engine, "u1")
    assert node.fake_mig.calls.count("set_mode") == 1


@pytest.mark.parametrize("mode", [MigMode.OFF, MigMode.STATIC])
def test_a_gpu_in_mig_mode_is_not_whole_where_the_driver_must_not_touch_it(
    mode: MigMode, node: TestNode, engines: list[PrepareEngine]
) -> None:
    node.policy = policy(mode=mode)
    engines.append(node.engine())
    node.fake_mig.turn_on("GPU-1")
    node.claims.add(claim("u1", result("gpu-1")))
    with pytest.raises(DeviceNotFound, match="MIG mode"):
        prepare(engines[0], "u1")


def test_time_slicing_of_a_mig_device_is_accepted_and_mps_is_not(node: TestNode, engine: PrepareEngine) -> None:
    def sharing(strategy: str) -> object:
        return config("MigDeviceConfig", sharing={"strategy": strategy})

    node.claims.add(
        claim("u1", result(ONE_G), configs=[opaque(sharing("TimeSlicing"))]),
        claim("u2", result(THREE_G), configs=[opaque(sharing("MPS"))]),
    )
    prepare(engine, "u1")
    with pytest.raises(UnsupportedConfig):
        prepare(engine, "u2")


# -- Ampere and static ------------------------------------------------------------------------------------------------


def test_ampere_needs_mig_mode_on_already(tmp_path: Path, engines: list[PrepareEngine]) -> None:
    node = TestNode(tmp_path, on=recorded(AMPERE, 2), policy=policy(mode=MigMode.DYNAMIC))
    engines.append(node.engine())
    node.claims.add(claim("u1", result("gpu-1-mig-3g20gb-9-4")))
    with pytest.raises(MigModePending, match="only by a reset"):
        prepare(engines[0], "u1")
    node.fake_mig.turn_on("GPU-1")
    prepare(engines[0], "u1")
    assert there(node) == [("GPU-1", "3g.20gb", 4)]
    unprepare(engines[0], "u1")
    assert there(node) == []
    assert "set_mode" not in node.fake_mig.calls, "a mode that only a reset changes is nobody's to touch"


def test_a_static_device_has_to_be_there_and_is_never_changed(node: TestNode, engines: list[PrepareEngine]) -> None:
    node.policy = policy(mode=MigMode.STATIC)
    engines.append(node.engine())
    engine = engines[0]
    node.claims.add(claim("u1", result(ONE_G)))
    with pytest.raises(DeviceNotFound, match="MIG mode is off"):
        prepare(engine, "u1")
    made = node.fake_mig.by_hand("GPU-1", 19, 3)
    with pytest.raises(DeviceNotFound, match=r"1g\.10gb at 3 \(MIG-0001\)"):
        prepare(engine, "u1")
    node.fake_mig.by_hand("GPU-1", 19, 0)
    prepare(engine, "u1")
    assert node.device_nodes("u1")[1:] == ["/dev/nvidia-caps/nvidia-cap1020", "/dev/nvidia-caps/nvidia-cap1021"]
    assert [step.kind for step in engine.entries()["u1"].steps] == ["CDIFile"]
    unprepare(engine, "u1")
    assert len(there(node)) == 2
    assert made.id == 1


def test_admin_access_sees_what_is_there_and_makes_nothing(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("admin", result(ONE_G, adminAccess=True)))
    with pytest.raises(DeviceNotFound, match="does not make it"):
        prepare(engine, "admin")
    prepare(engine, "u1")
    prepare(engine, "admin")
    assert node.device_nodes("admin") == node.device_nodes("u1")
    unprepare(engine, "admin")
    assert there(node) == [("GPU-1", "1g.10gb", 0)]
    unprepare(engine, "u1")
    assert there(node) == []


# -- partial compute instances ----------------------------------------------------------------------------------------


def test_parts_of_one_gpu_instance_share_it_and_the_last_one_removes_it(node: TestNode, engine: PrepareEngine) -> None:
    first, second, whole = "gpu-1-mig-1c3g40gb-9-4-c0", "gpu-1-mig-2c3g40gb-9-4-c1", THREE_G
    node.claims.add(claim("u1", result(first)), claim("u2", result(second)), claim("u3", result(whole)))
    prepare(engine, "u1")
    prepare(engine, "u2")
    ((_gpu, (instance,)),) = node.fake_mig.everything().items()
    assert [(each.start, each.slices) for each in instance.compute_instances] == [(0, 1), (1, 2)]
    assert set(node.device_nodes("u1")) & set(node.device_nodes("u2")) == {
        "/dev/nvidia1",
        "/dev/nvidia-caps/nvidia-cap1010",
    }
    with pytest.raises(DeviceInUse):
        prepare(engine, "u3")
    unprepare(engine, "u1")
    ((_gpu, (instance,)),) = node.fake_mig.everything().items()
    assert [(each.start, each.slices) for each in instance.compute_instances] == [(1, 2)]
    unprepare(engine, "u2")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_compute_instance_that_fails_takes_its_gpu_instance_along(node: TestNode, engine: PrepareEngine) -> None:
    """NVIDIA's driver leaves the GPU instance, and its rollback fails for ever (issue 1452)."""
    node.claims.add(claim("u1", result(THREE_G)))
    node.fake_mig.faults.append(Fault("create_compute_instance"))
    with pytest.raises(HardwareError, match="UNKNOWN"):
        prepare(engine, "u1")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()
    assert not engine.entries()
    prepare(engine, "u1")
    unprepare(engine, "u1")
    assert node.left_overs() == []


@pytest.mark.parametrize("then", ["prepare", "unprepare", "restart"])
def test_a_rollback_that_fails_is_finished_by_whatever_comes_next(
    then: str, node: TestNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result(THREE_G)))
    node.fake_mig.faults += [Fault("create_compute_instance"), Fault("destroy_gpu_instance")]
    with pytest.raises(HardwareError):
        prepare(engine, "u1")
    assert there(node) == [("GPU-1", "3g.40gb", 4)]
    assert engine.entries()["u1"].state is ClaimState.PREPARE_STARTED
    if then == "prepare":
        prepare(engine, "u1")
        assert there(node) == [("GPU-1", "3g.40gb", 4)]
        unprepare(engine, "u1")
    elif then == "unprepare":
        unprepare(engine, "u1")
    else:
        engine.stop()
        engines.append(node.engine())
    assert there(node) == []
    assert node.fake_mig.enabled() == set()
    assert node.left_overs() == []


@pytest.mark.parametrize("function", ["set_mode", "create_gpu_instance", "create_compute_instance"])
@pytest.mark.parametrize("after", [False, True], ids=["without effect", "with effect"])
def test_every_call_may_fail_before_or_after_it_did_its_work(
    function: str, after: bool, node: TestNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result(ONE_G, "a"), result(THREE_G, "b")))
    node.fake_mig.faults.append(Fault(function, after=after))
    with pytest.raises(HardwareError):
        prepare(engine, "u1")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()
    prepare(engine, "u1")


def test_one_claim_of_a_call_fails_and_the_other_does_not(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result(OTHER_1G)))
    node.fake_mig.faults.append(Fault("create_compute_instance"))
    answers = engine.prepare([ref("u1"), ref("u2")], timeout=10)
    failed = [uid for uid, answer in answers.items() if isinstance(answer, DriverError)]
    assert len(failed) == 1, "whichever came first"
    assert isinstance(answers[failed[0]], HardwareError)
    assert there(node) == [("GPU-1", "1g.10gb", 1 if failed == ["u1"] else 0)]
    unprepare(engine, "u1", "u2")
    assert there(node) == []


@pytest.mark.parametrize("slices", [1, 3])
def test_a_compute_instance_that_somebody_else_made_in_a_new_gpu_instance_survives_the_rollback(
    slices: int, node: TestNode, engine: PrepareEngine
) -> None:
    """One of the device's own size too: NVML refused ours, so it cannot be ours."""
    node.claims.add(claim("u1", result(THREE_G)))
    create = node.fake_mig.create_compute_instance
    theirs: list[str] = []

    def somebody_is_faster(gpu: str, gpu_instance: int, wanted: int) -> ComputeInstance:
        if not theirs:
            theirs.append(create(gpu, gpu_instance, slices).uuid)
        return create(gpu, gpu_instance, wanted)

    node.fake_mig.create_compute_instance = somebody_is_faster  # type: ignore[method-assign,assignment]
    with pytest.raises(PlacementOccupied):
        prepare(engine, "u1")
    assert there(node) == [("GPU-1", "3g.40gb", 4)]
    with pytest.raises(InstanceInUse, match="holds what this claim has not made"):
        prepare(engine, "u1")
    (instance,) = node.fake_mig.everything()["GPU-1"]
    assert [each.uuid for each in instance.compute_instances] == theirs
    node.fake_mig.destroy_compute_instance("GPU-1", instance.id, instance.compute_instances[0].id)
    prepare(engine, "u1")
    unprepare(engine, "u1")
    assert there(node) == []


def test_what_was_made_in_the_gpu_instance_of_a_prepared_claim_ends_with_it(
    node: TestNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result(THREE_G)))
    prepare(engine, "u1")
    (instance,) = node.fake_mig.everything()["GPU-1"]
    node.fake_mig.destroy_compute_instance("GPU-1", instance.id, instance.compute_instances[0].id)
    node.fake_mig.create_compute_instance("GPU-1", instance.id, 1)
    node.fake_mig.create_compute_instance("GPU-1", instance.id, 1)
    unprepare(engine, "u1")
    assert there(node) == []


def test_a_placement_that_is_taken_between_look_and_create_is_not_rolled_back(
    node: TestNode, engine: PrepareEngine
) -> None:
    """NVML answers "insufficient resources", whatever is in the way; what is there is somebody else's."""
    node.claims.add(claim("u1", result(THREE_G, "a"), result(ONE_G, "b")))
    create = node.fake_mig.create_gpu_instance

    def somebody_is_faster(gpu: str, profile_id: int, placement: object) -> int:
        if profile_id == 19 and not any(each[1] == "1g.10gb" for each in there(node)):
            node.fake_mig.by_hand(gpu, 19, 0)
        return create(gpu, profile_id, placement)  # type: ignore[arg-type]

    node.fake_mig.create_gpu_instance = somebody_is_faster  # type: ignore[method-assign,assignment]
    with pytest.raises(PlacementOccupied, match="has come there in the meantime"):
        prepare(engine, "u1")
    assert there(node) == [("GPU-1", "1g.10gb", 0)], "the claim's own 3g is gone, the other one stays"
    assert not engine.entries()
    assert node.refused.by_gpu() == {}


def test_nor_where_it_cannot_be_seen_who_was_faster(node: TestNode, engine: PrepareEngine) -> None:
    """The claim would wait for ever for somebody to remove what it has not made."""
    node.claims.add(claim("u1", result(ONE_G)))
    create = node.fake_mig.create_gpu_instance

    def somebody_is_faster(gpu: str, profile_id: int, placement: object) -> int:
        node.fake_mig.by_hand(gpu, 19, 0)
        node.fake_mig.faults.append(Fault("instances"))
        return create(gpu, profile_id, placement)  # type: ignore[arg-type]

    node.fake_mig.create_gpu_instance = somebody_is_faster  # type: ignore[method-assign,assignment]
    with pytest.raises(PlacementOccupied, match="INSUFFICIENT_RESOURCES"):
        prepare(engine, "u1")
    assert not engine.entries()
    unprepare(engine, "u1")
    assert len(there(node)) == 1


def test_a_placement_that_is_free_and_refused_is_remembered_with_both_views(
    node: TestNode, engine: PrepareEngine
) -> None:
    node.fake_mig.by_hand("GPU-1", 9, 4)
    node.fake_mig.refused.add(("GPU-1", 19, 0))
    node.claims.add(claim("u1", result(ONE_G)))
    with pytest.raises(PlacementOccupied) as caught:
        prepare(engine, "u1")
    assert caught.value.retryable
    ((gpu, (refusal,)),) = node.refused.by_gpu().items()
    assert (gpu, refusal.profile_id, refusal.placement.start) == ("GPU-1", 19, 0)
    for words in ("INSUFFICIENT_RESOURCES", "lists nothing there", "3g.40gb at 4-7"):
        assert words in refusal.message
        assert words in str(caught.value)
    node.fake_mig.refused.clear()
    prepare(engine, "u1")
    assert node.refused.by_gpu() == {}


def test_a_lost_gpu_does_not_hold_up_the_unprepare(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    prepare(engine, "u1")
    lost = Fault("instances", lambda: NvmlCallError("nvmlDeviceGetHandleByUUID", "GPU-1", Return.GPU_IS_LOST))
    node.fake_mig.faults += [lost, lost]
    unprepare(engine, "u1")
    assert not engine.entries()
    assert node.cdi.claim_uids() == ()


def test_a_plan_explains_itself(node: TestNode, engine: PrepareEngine, caplog: pytest.LogCaptureFixture) -> None:
    node.claims.add(claim("u1", result(THREE_G)))
    with caplog.at_level("DEBUG", "kubelet_plugin.prepare.work"):
        prepare(engine, "u1")
    text = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("plan for claim"))
    for words in (
        "turn MIG mode of GPU GPU-1 on; done when it is on; undone by: turn MIG mode of GPU GPU-1 off when no instance",
        "make GPU instance 3g.40gb at 4-7 of GPU GPU-1",
        "make a compute instance of 3 slices",
        f"with u1-{THREE_G}; done when",
    ):
        assert words in text


# -- later ------------------------------------------------------------------------------------------------------------


def test_an_instance_destroyed_under_a_claim_is_made_again(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    first = prepare(engine, "u1")
    before = node.device_nodes("u1")
    node.fake_mig.destroy_by_hand("GPU-1", 1)
    node.fake_mig.by_hand("GPU-1", 9, 4)  # takes the GPU instance's id
    assert prepare(engine, "u1") == first
    assert node.device_nodes("u1") != before
    result_now = engine.entries()["u1"].steps[2].result
    assert dict(result_now) == {"gpuInstance": "2", "computeInstance": "0", "uuid": "MIG-0003"}
    unprepare(engine, "u1")
    assert there(node) == [("GPU-1", "3g.40gb", 4)]


def test_what_was_made_for_a_claim_is_its_own_whatever_the_policy_becomes(
    node: TestNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    first = prepare(engine, "u1")
    engine.stop()
    node.policy = policy(mode=MigMode.OFF)
    engines.append(node.engine())
    assert prepare(engines[1], "u1") == first
    unprepare(engines[1], "u1")
    assert there(node) == []


def test_a_reboot_leaves_nothing_to_undo_and_what_came_since_alone(
    node: TestNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result(THREE_G)))
    prepare(engine, "u1")
    engine.stop()
    node.fake_mig.destroy_by_hand("GPU-1", 1)
    node.fake_mig.by_hand("GPU-1", 19, 0)  # a script at boot, at the very same place
    after = node.engine("boot-2")
    engines.append(after)
    assert not after.entries()
    assert there(node) == [("GPU-1", "1g.10gb", 0)]
    prepare(after, "u2")
    assert after.entries()["u2"].boot_id == "boot-2"


def test_a_changed_allocation_gives_the_old_instance_back(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    prepare(engine, "u1")
    node.claims.add(claim("u1", result("gpu-2-mig-1g10gb-19-0")))
    prepare(engine, "u1")
    assert there(node) == [("GPU-2", "1g.10gb", 0)]
    assert node.fake_mig.enabled() == {"GPU-2"}


def test_a_claim_whose_record_was_lost_is_unprepared_by_its_devices_names(
    node: TestNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result(ONE_G)), claim("u2", result(FOUR_G)), claim("u3", result(THREE_G)))
    prepare(engine, "u1")
    prepare(engine, "u3")
    engine.stop()
    (node.state / "checkpoint.json").write_bytes(b"{}")
    after = node.engine()
    engines.append(after)
    assert after.entries()["u1"].state is ClaimState.RECORD_LOST
    with pytest.raises(DeviceInUse, match="known only from its CDI file"):
        prepare(after, "u2")
    prepare(after, "u3")
    assert after.entries()["u3"].state is ClaimState.COMPLETED
    assert node.fake_mig.calls.count("create_gpu_instance") == 2, "it is as it was"
    unprepare(after, "u1", "u3")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()
    assert node.cdi.claim_uids() == ()


def test_what_a_lost_record_left_on_another_gpu_is_undone_under_its_lock(
    node: TestNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result(ONE_G)))
    prepare(engine, "u1")
    engine.stop()
    (node.state / "checkpoint.json").write_bytes(b"{}")
    node.claims.add(claim("u1", result("gpu-2-mig-1g10gb-19-0")))
    after = node.engine()
    engines.append(after)
    with after._locks.hold(["device-GPU-1"]):
        waits = after.prepare([ref("u1")], timeout=0.2)["u1"]
        assert "waiting for lock device-GPU-1" in str(waits)
        assert there(node) == [("GPU-1", "1g.10gb", 0)]
    prepare(after, "u1")
    assert there(node) == [("GPU-2", "1g.10gb", 0)]


@pytest.mark.parametrize("first", ["owner", "admin"])
def test_of_two_lost_records_of_one_device_the_last_gives_it_back(
    node: TestNode, engine: PrepareEngine, engines: list[PrepareEngine], first: str
) -> None:
    """One of them has only looked at it, with admin access, and no CDI file tells which."""
    node.claims.add(claim("owner", result(ONE_G)), claim("admin", result(ONE_G, adminAccess=True)))
    prepare(engine, "owner")
    prepare(engine, "admin")
    engine.stop()
    (node.state / "checkpoint.json").write_bytes(b"{}")
    after = node.engine()
    engines.append(after)
    unprepare(after, first)
    assert there(node) == [("GPU-1", "1g.10gb", 0)]
    unprepare(after, "owner" if first == "admin" else "admin")
    assert there(node) == []
    assert node.fake_mig.enabled() == set()
