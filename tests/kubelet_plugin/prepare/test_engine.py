"""The engine's answers: prepare, repeat, unprepare, and every reason to refuse a claim."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dra_driver.errors import (
    ClaimNotAllocated,
    ClaimNotFound,
    ClaimReplaced,
    ConfigError,
    DeviceInUse,
    DeviceNotFound,
    DriverError,
    HardwareError,
    HardwareUnavailable,
    NoDevicesForDriver,
    StateError,
    UnsupportedConfig,
)
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import Forbidden, Obj, Unavailable
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.claims.model import PreparedDevice
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.prepare.node import BOOT, DRIVER, TestNode, claim, config, opaque, ref, result

SHARE = "5afb1ec1-3e70-424e-9ff3-402228e8682e"


def prepare(engine: PrepareEngine, uid: str, name: str = "") -> tuple[PreparedDevice, ...]:
    answer = engine.prepare([ref(uid, name)], timeout=10)[uid]
    if isinstance(answer, DriverError):
        raise answer
    return answer


def unprepare(engine: PrepareEngine, *uids: str) -> None:
    assert engine.unprepare([ref(uid) for uid in uids], timeout=10) == dict.fromkeys(uids)


def test_prepare_and_unprepare(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")))
    assert prepare(engine, "u1") == (
        PreparedDevice(("gpu",), "node-0", "gpu-1", ("k8s.gpu.nvidia.com/claim=u1-gpu-1",)),
    )
    assert node.cdi_devices("u1") == ["u1-gpu-1"]
    assert engine.entries()["u1"].state is ClaimState.COMPLETED
    unprepare(engine, "u1")
    assert node.cdi.claim_uids() == ()
    assert not engine.entries()
    assert node.left_overs() == []


def test_unprepare_needs_no_api_and_unknown_claims_succeed(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")))
    prepare(engine, "u1")
    reads = node.claims.reads
    node.claims.error = Unavailable("no server")
    unprepare(engine, "u1", "never-seen")
    unprepare(engine, "u1")
    assert node.claims.reads == reads
    assert node.left_overs() == []


def test_a_repeated_prepare_gives_the_same_answer_and_mends_the_cdi_file(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")))
    first = prepare(engine, "u1")
    content = node.cdi.path("u1").read_bytes()
    checkpoint = (node.state / "checkpoint.json").stat()
    for spoil in (node.cdi.path("u1").unlink, lambda: node.cdi.path("u1").write_bytes(b"---\n")):
        spoil()
        assert prepare(engine, "u1") == first
        assert node.cdi.path("u1").read_bytes() == content
    again = (node.state / "checkpoint.json").stat()
    assert (again.st_ino, again.st_mtime_ns) == (checkpoint.st_ino, checkpoint.st_mtime_ns)


def test_requests_devices_and_shares(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("u1", result("gpu-0", "a"), result("gpu-1", "b/large"), result("gpu-2", "c", shareID=SHARE)),
    )
    assert prepare(engine, "u1") == (
        PreparedDevice(("a",), "node-0", "gpu-0", ("k8s.gpu.nvidia.com/claim=u1-gpu-0",)),
        PreparedDevice(("b",), "node-0", "gpu-1", ("k8s.gpu.nvidia.com/claim=u1-gpu-1",)),
        PreparedDevice(("c",), "node-0", "gpu-2", (f"k8s.gpu.nvidia.com/claim=u1-gpu-2-{SHARE}",), SHARE),
    )
    assert node.cdi_devices("u1") == ["u1-gpu-0", "u1-gpu-1", f"u1-gpu-2-{SHARE}"]


def test_one_device_for_two_requests_is_one_cdi_device(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", *(result("gpu-0", name, adminAccess=True) for name in ("a", "b"))))
    assert [device.request_names for device in prepare(engine, "u1")] == [("a",), ("b",)]
    assert node.cdi_devices("u1") == ["u1-gpu-0"]


def test_only_our_drivers_devices_in_our_pool(node: TestNode, engine: PrepareEngine) -> None:
    others = [{**result("gpu-0"), "driver": "other.example"}, {**result("gpu-2"), "pool": "node-9"}]
    node.claims.add(claim("u1", *others, result("gpu-1")))
    assert [device.device_name for device in prepare(engine, "u1")] == ["gpu-1"]


CONFIG_ERRORS: list[tuple[Any, type[DriverError], list[str]]] = [
    (config(sharing={"bogus": 1}), ConfigError, ["config[0].opaque.parameters.sharing.bogus", "unknown field"]),
    (config(kind="FooConfig"), ConfigError, ["config[0].opaque.parameters.kind", "FooConfig", "GpuConfig"]),
    (
        config(sharing={"strategy": "Foo"}),
        ConfigError,
        ["config[0].opaque.parameters.sharing.strategy", "Foo", "TimeSlicing, MPS"],
    ),
    (config(kind="MigDeviceConfig"), ConfigError, ["MigDeviceConfig", "gpu-1", "type gpu", "request gpu"]),
    (
        config(sharing={"strategy": "TimeSlicing"}),
        UnsupportedConfig,
        ["config[0].opaque.parameters.sharing.strategy", "TimeSlicingSettings", "remove sharing"],
    ),
    (config(sharing={"strategy": "MPS"}), UnsupportedConfig, ["sharing.strategy", "MPSSupport", "remove sharing"]),
    ("text", ConfigError, ["config[0].opaque.parameters", "must be an object"]),
    (None, ConfigError, ["config[0].opaque.parameters"]),
]


@pytest.mark.parametrize(("parameters", "error", "words"), CONFIG_ERRORS)
def test_a_wrong_config_changes_nothing(
    parameters: Any, error: type[DriverError], words: list[str], node: TestNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[opaque(parameters, ["gpu"])]))
    with pytest.raises(error) as caught:
        prepare(engine, "u1")
    for word in [*words, "default/u1", "correct it in the claim"]:
        assert word in str(caught.value)
    assert not caught.value.retryable
    assert not engine.entries()
    assert node.left_overs() == []


def test_a_config_of_another_kind_is_refused_though_the_scheduler_leaves_its_request_out(
    node: TestNode, engine: PrepareEngine
) -> None:
    mps = config("MigDeviceConfig", sharing={"strategy": "MPS"})
    stored = claim("u1", result("gpu-1"), configs=[opaque(mps)])
    asked: Obj = {"opaque": {"driver": DRIVER, "parameters": mps}, "requests": ["gpu"]}
    node.claims.add({**stored, "spec": {"devices": {"config": [asked]}}})
    with pytest.raises(ConfigError, match="MigDeviceConfig cannot be applied to device gpu-1 of type gpu") as caught:
        prepare(engine, "u1")
    assert not caught.value.retryable
    assert not engine.entries()
    assert node.left_overs() == []
    node.claims.add({**stored, "spec": {"devices": {"config": [{"opaque": asked["opaque"]}]}}})
    assert [device.device_name for device in prepare(engine, "u1")] == ["gpu-1"]


def test_a_strategy_is_refused_only_where_it_applies(node: TestNode, engine: PrepareEngine) -> None:
    long = config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}})
    node.claims.add(claim("u1", result("gpu-0"), configs=[opaque(long), opaque(config(), ["gpu"])]))
    prepare(engine, "u1")
    node.claims.add(claim("u2", result("gpu-1"), configs=[opaque(long)]))
    with pytest.raises(UnsupportedConfig, match="needs feature gate TimeSlicingSettings"):
        prepare(engine, "u2")


def with_status(uid: str, status: Any) -> Obj:
    return {"metadata": {"namespace": "default", "name": uid, "uid": uid}, "status": status}


CLAIM_ERRORS: list[tuple[Obj | None, type[DriverError], bool, list[str]]] = [
    (None, ClaimNotFound, True, ["default/u1", "does not exist"]),
    (claim("other-uid", result("gpu-1"), name="u1"), ClaimReplaced, True, ["other-uid", "u1"]),
    (with_status("u1", {}), ClaimNotAllocated, True, ["not allocated"]),
    (with_status("u1", None), ClaimNotAllocated, True, ["not allocated"]),
    (claim("u1"), NoDevicesForDriver, False, ["no devices at all"]),
    (
        claim("u1", {**result("gpu-1"), "driver": "other.example"}),
        NoDevicesForDriver,
        False,
        ["other.example/node-0/gpu-1", "gpu.nvidia.com", "pool node-0"],
    ),
    (claim("u1", {**result("gpu-1"), "pool": "node-7"}), NoDevicesForDriver, False, ["gpu.nvidia.com/node-7/gpu-1"]),
    (claim("u1", result("gpu-99")), DeviceNotFound, True, ["gpu-99", "gpu-0, gpu-1, gpu-2, gpu-3"]),
    (claim("u1", result("gpu-1-mig-1g10gb-19-0")), DeviceNotFound, True, ["gpu-1-mig-1g10gb-19-0"]),
    (claim("u1", result("nonsense")), DeviceNotFound, True, ["nonsense"]),
]


@pytest.mark.parametrize(("stored", "error", "retryable", "words"), CLAIM_ERRORS)
def test_a_claim_that_cannot_be_prepared(
    stored: Obj | None,
    error: type[DriverError],
    retryable: bool,
    words: list[str],
    node: TestNode,
    engine: PrepareEngine,
) -> None:
    if stored is not None:
        node.claims.add(stored)
    with pytest.raises(error) as caught:
        prepare(engine, "u1")
    assert caught.value.retryable is retryable
    for word in words:
        assert word in str(caught.value)
    assert not engine.entries()
    assert node.left_overs() == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Forbidden("serviceaccount may not get"), ["not allowed", "service account"]),
        (Unavailable("timed out"), ["timed out"]),
    ],
)
def test_an_api_server_that_does_not_answer(
    error: Exception, words: list[str], node: TestNode, engine: PrepareEngine
) -> None:
    node.claims.error = error
    with pytest.raises(DriverError) as caught:
        prepare(engine, "u1")
    assert caught.value.retryable
    assert caught.value.reason == "ClaimUnreadable"
    for word in words:
        assert word in str(caught.value)


def test_a_prepared_claim_is_answered_without_the_api_server(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1", "a"), result("gpu-2", "b", shareID=SHARE)))
    first = prepare(engine, "u1")
    node.cdi.remove("u1")
    node.claims.error = Unavailable("no server")
    assert prepare(engine, "u1") == first
    assert node.cdi_devices("u1") == ["u1-gpu-1", f"u1-gpu-2-{SHARE}"]


def test_a_device_has_one_owner(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-1")))
    prepare(engine, "u1")
    with pytest.raises(DeviceInUse, match="gpu-1 is held by claim default/u1:u1") as caught:
        prepare(engine, "u2")
    assert caught.value.retryable
    assert node.cdi.claim_uids() == ("u1",)
    unprepare(engine, "u1")
    prepare(engine, "u2")


def test_two_claims_of_one_call_cannot_have_the_same_device(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-1")), claim("u3", result("gpu-2")))
    answers = engine.prepare([ref("u1"), ref("u2"), ref("u3")], timeout=10)
    winners = {uid for uid, answer in answers.items() if not isinstance(answer, DriverError)}
    assert winners in ({"u1", "u3"}, {"u2", "u3"})
    assert {type(answers[uid]) for uid in {"u1", "u2"} - winners} == {DeviceInUse}
    assert set(node.cdi.claim_uids()) == winners
    assert set(engine.entries()) == winners


def test_admin_access_neither_waits_nor_keeps_out(node: TestNode, engine: PrepareEngine) -> None:
    admin = claim("admin", *(result(f"gpu-{minor}", adminAccess=True) for minor in range(4)))
    node.claims.add(claim("u1", result("gpu-1")), admin, claim("u2", result("gpu-2")))
    prepare(engine, "u1")
    prepare(engine, "admin")
    prepare(engine, "u2")
    unprepare(engine, "admin")
    assert node.cdi.claim_uids() == ("u1", "u2")
    node.claims.add(claim("u3", result("gpu-1")))
    with pytest.raises(DeviceInUse):
        prepare(engine, "u3")


def test_shares_live_together_but_not_with_a_whole_device(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("s1", result("gpu-1", shareID="share-1")),
        claim("s2", result("gpu-1", shareID="share-2")),
        claim("whole", result("gpu-1")),
    )
    prepare(engine, "s1")
    prepare(engine, "s2")
    with pytest.raises(DeviceInUse):
        prepare(engine, "whole")
    unprepare(engine, "s1", "s2")
    prepare(engine, "whole")
    with pytest.raises(DeviceInUse):
        prepare(engine, "s1")


def test_a_changed_allocation_is_prepared_anew(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")))
    prepare(engine, "u1")
    node.claims.add(claim("u1", result("gpu-2")), claim("u2", result("gpu-1")))
    assert [device.device_name for device in prepare(engine, "u1")] == ["gpu-2"]
    assert node.cdi_devices("u1") == ["u1-gpu-2"]
    prepare(engine, "u2")


def test_a_missing_driver_is_retryable_and_never_an_empty_spec(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")))
    (node.root / "usr").rename(node.root / "gone")
    with pytest.raises(HardwareUnavailable, match=r"libcuda\.so") as caught:
        prepare(engine, "u1")
    assert caught.value.retryable
    assert node.left_overs() == []
    (node.root / "gone").rename(node.root / "usr")
    prepare(engine, "u1")


def test_hardware_that_cannot_be_read(node: TestNode, engine: PrepareEngine) -> None:
    def fails() -> Machine:
        raise HardwareError("NVML: driver not loaded")

    node.claims.add(claim("u1", result("gpu-1")))
    broken = node.engine(start=False)
    broken._work._node = replace(broken._work._node, machine=fails)
    broken.start()
    with pytest.raises(HardwareError, match="driver not loaded"):
        prepare(broken, "u1")
    unprepare(broken, "u1")
    broken.stop()


def test_a_failing_step_is_rolled_back(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-2")))
    node.cdi.path("u1").mkdir(parents=True)  # the file cannot be written there
    answers = engine.prepare([ref("u1"), ref("u2")], timeout=10)
    assert isinstance(answers["u1"], StateError)
    assert not isinstance(answers["u2"], DriverError)
    assert engine.entries()["u2"].state is ClaimState.COMPLETED
    node.cdi.path("u1").rmdir()
    prepare(engine, "u1")


def test_a_new_boot_prepares_again(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-1")))
    first = prepare(engine, "u1")
    engine.stop()
    after = node.engine("boot-2")
    assert node.cdi.claim_uids() == ()
    assert not after.entries()
    assert prepare(after, "u1") == first
    assert node.cdi_devices("u1") == ["u1-gpu-1"]
    assert after.entries()["u1"].boot_id == "boot-2"
    with pytest.raises(DeviceInUse):
        prepare(after, "u2")
    unprepare(after, "u1")
    assert node.left_overs() == []
    after.stop()


def test_what_an_earlier_boot_held_is_free(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")), claim("u2", result("gpu-1")))
    prepare(engine, "u1")
    engine.stop()
    after = node.engine("boot-2")
    prepare(after, "u2")
    unprepare(after, "u1", "u2")
    assert not after.entries()
    after.stop()


def test_a_state_folder_that_cannot_be_made(node: TestNode) -> None:
    node.state.write_text("a file")
    with pytest.raises(StateError, match="cannot make state folder"):
        node.engine()


def test_a_state_folder_that_goes_under_a_running_plugin_is_told(node: TestNode, engine: PrepareEngine) -> None:
    assert engine.state_problem() is None
    node.state.rename(node.state.with_name("away"))
    problem = engine.state_problem()
    assert problem is not None
    assert f"state folder {node.state} is gone" in problem
    node.state.with_name("away").rename(node.state)
    assert engine.state_problem() is None


def test_after_stop_every_call_is_answered(node: TestNode, engine: PrepareEngine) -> None:
    engine.stop()
    assert isinstance(engine.prepare([ref("u1")], timeout=1)["u1"], StateError)
    assert isinstance(engine.unprepare([ref("u1")], timeout=1)["u1"], StateError)


def test_the_checkpoint_is_private_and_readable(node: TestNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1")))
    prepare(engine, "u1")
    path = node.state / "checkpoint.json"
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(path.read_bytes())
    assert document["version"] == 1
    assert document["bootID"] == BOOT
    assert document["claims"]["u1"]["claim"]["devices"][0]["device"] == "gpu-1"
