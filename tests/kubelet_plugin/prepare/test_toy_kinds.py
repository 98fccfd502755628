"""A kind of device and a wrapper that only these tests have get everything that whole GPUs have, from their own module.

The sweep over every kill is in ``tests/crash``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.errors import (
    ConfigError,
    DeviceInUse,
    DeviceNotFound,
    DriverError,
    HardwareError,
    StateError,
)
from dra_driver.kube.interface import Obj, Unavailable
from kubelet_plugin.claims.entry import ClaimState, StepRecord
from kubelet_plugin.claims.model import PreparedDevice
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.health.states import DeviceHealth, Health, device_health
from kubelet_plugin.health.troubles import TroubledDevices
from kubelet_plugin.prepare.admission import OverlappingDevices
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.recovery import Recovered
from tests.kubelet_plugin.prepare.node import BOOT, claim, config, opaque, ref, result
from tests.kubelet_plugin.prepare.toy_kinds import ToyKind
from tests.kubelet_plugin.prepare.toy_node import ToyNode


def slices(interval: str = "Long") -> Obj:
    return opaque(config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}}))


SLICES = slices()


@pytest.fixture
def node(tmp_path: Path) -> ToyNode:
    return ToyNode(tmp_path)


@pytest.fixture
def engine(node: ToyNode) -> Iterator[PrepareEngine]:
    engine = node.engine()
    yield engine
    engine.stop()


def prepare(engine: PrepareEngine, uid: str) -> tuple[PreparedDevice, ...]:
    answer = engine.prepare([ref(uid)], timeout=10)[uid]
    if isinstance(answer, DriverError):
        raise answer
    return answer


def unprepare(engine: PrepareEngine, uid: str) -> None:
    assert engine.unprepare([ref(uid)], timeout=10) == {uid: None}


def env(node: ToyNode, uid: str) -> list[str]:
    spec = node.cdi.read(uid)
    assert spec is not None
    return [text for device in spec.devices for text in device.edits.env]


def test_prepare_and_unprepare(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("toy-bear", "a"), result("gpu-1", "b")))
    assert [device.device_name for device in prepare(engine, "u1")] == ["toy-bear", "gpu-1"]
    assert node.made() == ["toy-bear"]
    assert "TOYS=yes" in env(node, "u1")
    assert "TOY=1" in env(node, "u1"), "known only once the file is there"
    unprepare(engine, "u1")
    assert (node.made(), node.left_overs(), dict(engine.entries())) == ([], [], {})


def test_a_repetition_does_only_what_is_missing(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("toy-bear")), claim("u2", result("toy-car")))
    first = prepare(engine, "u1")
    prepare(engine, "u2")
    (node.toys.folder / "toy-bear").rename(node.toys.folder / "by-hand")
    assert prepare(engine, "u1") == first
    assert "TOY=3" in env(node, "u1"), "1 and 2 are taken"
    assert engine.entries()["u1"].steps[0].result == {"number": "3"}


def test_names_configurations_and_what_excludes_what(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("toy-bear")), claim("u2", result("toy-bear")), claim("u3", result("toy-ball")))
    prepare(engine, "u1")
    with pytest.raises(DeviceInUse, match="toy-bear is held by claim default/u1:u1"):
        prepare(engine, "u2")
    with pytest.raises(DeviceInUse, match="toy-ball cannot be used beside toy-bear, which is held"):
        prepare(engine, "u3")
    node.claims.add(claim("u4", result("toy-cat", "a"), result("toy-car", "b")), claim("u5", result("toy-none")))
    with pytest.raises(OverlappingDevices):
        prepare(engine, "u4")
    with pytest.raises(DeviceNotFound, match="there is no toy-none"):
        prepare(engine, "u5")
    node.claims.add(claim("u6", result("toy-dog"), configs=[opaque(config(), ["gpu"])]))
    with pytest.raises(ConfigError, match="GpuConfig cannot be applied to device toy-dog of type toy"):
        prepare(engine, "u6")
    assert node.made() == ["toy-bear"]


def test_a_failing_step_takes_back_the_others(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("toy-ant", "a"), result("toy-bear", "b")))
    node.toys.fails.add("toy-bear")
    with pytest.raises(HardwareError, match="no room for toy-bear"):
        prepare(engine, "u1")
    assert (node.made(), dict(engine.entries())) == ([], {})


@pytest.mark.parametrize("state", [ClaimState.PREPARE_STARTED, ClaimState.UNPREPARE_STARTED])
def test_what_a_process_left_half_done_the_next_one_takes_back(node: ToyNode, state: ClaimState) -> None:
    node.claims.add(claim("u1", result("toy-bear")))
    before = node.engine()
    prepare(before, "u1")
    before.stop()
    checkpoint = node.checkpoint()
    checkpoint.update(put=[replace(checkpoint.entries()["u1"], state=state)])
    after = node.engine(start=False)
    assert after.start() in (Recovered(rolled_back=("u1",)), Recovered(unprepared=("u1",)))
    assert node.made() == []
    after.stop()


def test_a_prepared_claim_is_mended_at_the_start(node: ToyNode) -> None:
    node.claims.add(claim("u1", result("toy-bear")))
    before = node.engine()
    prepare(before, "u1")
    before.stop()
    (node.toys.folder / "toy-bear").unlink()
    after = node.engine(start=False)
    assert after.start() == Recovered(restored=("u1",))
    assert node.made() == ["toy-bear"]
    after.stop()


def test_a_claim_whose_record_was_lost_is_unprepared_as_a_whole(node: ToyNode) -> None:
    node.claims.add(claim("u1", result("toy-bear")))
    before = node.engine()
    prepare(before, "u1")
    before.stop()
    (node.state / "checkpoint.json").unlink()
    after = node.engine()
    assert after.entries()["u1"].state is ClaimState.RECORD_LOST
    unprepare(after, "u1")
    assert (node.made(), node.left_overs()) == ([], [])
    after.stop()


class Watch:
    """A hardware watch that is read by hand."""

    def __init__(self, node: ToyNode) -> None:
        self.state = HardwareState(read=True, machine=node.machine)
        self.read: Callable[[], None] = lambda: None

    def on_reading(self, listener: Callable[[], None]) -> None:
        self.read = listener

    def request_scan_within(self, seconds: float) -> None:
        """The test reads when it wants."""


def test_a_toy_that_somebody_took_away_is_told_ill(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("toy-bear")), claim("u2", result("toy-car")))
    prepare(engine, "u1")
    prepare(engine, "u2")
    watch = Watch(node)
    troubled = TroubledDevices(watch, engine.entries, node.kinds(), BOOT)
    (node.toys.folder / "toy-bear").unlink()
    watch.read()
    assert troubled.devices == {}, "one reading may be older than a prepare"
    watch.read()
    kinds, entries = node.kinds(), engine.entries().values()
    held = {each.prepared.device_name: kinds.gpu_of(each) for entry in entries for each in entry.devices}
    assert device_health(watch.state, {}, held, troubled.devices) == (
        DeviceHealth("toy-bear", Health.UNHEALTHY, "somebody has taken toy-bear away"),
        DeviceHealth("toy-car", Health.HEALTHY),
    )


def test_a_wrapper_comes_around_a_whole_gpu(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[SLICES]), claim("u2", result("gpu-2")))
    prepare(engine, "u1")
    prepare(engine, "u2")
    assert node.made() == ["GPU-1"]
    assert (env(node, "u1"), env(node, "u2")) == (["RIBBON=1"], [])
    assert [step.kind for step in engine.entries()["u1"].steps] == ["Ribbon", "CDIFile"]
    node.claims.error = Unavailable("no server")
    node.cdi.remove("u1")
    prepare(engine, "u1")
    assert env(node, "u1") == ["RIBBON=1"], "a repetition goes by the record, for it does not know the configuration"
    unprepare(engine, "u1")
    assert (node.made(), node.left_overs()) == ([], [])


def test_a_strategy_that_no_wrapper_has_is_refused(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[opaque(config(sharing={"strategy": "MPS"}))]))
    with pytest.raises(ConfigError, match="MPS is not available on this node"):
        prepare(engine, "u1")


def test_a_record_of_an_unknown_kind_stops_the_claim_and_shifts_nothing(node: ToyNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("toy-bear", "a"), result("toy-car", "b")))
    prepare(engine, "u1")
    checkpoint = node.checkpoint()
    known = checkpoint.entries()["u1"]
    bear, car, file = known.steps
    strange = replace(known, steps=(bear, StepRecord("FromTheFuture"), car, file))
    checkpoint.update(put=[strange])
    with pytest.raises(StateError, match="'FromTheFuture', which this version of the driver does not know"):
        prepare(engine, "u1")
    answer = engine.unprepare([ref("u1")], timeout=10)["u1"]
    assert isinstance(answer, StateError)
    assert "run the version that prepared the claim" in str(answer)
    assert engine.entries()["u1"] == strange
    assert node.made() == ["toy-bear", "toy-car"], "nothing was undone before it was known"
    checkpoint.update(put=[known])
    unprepare(engine, "u1")
    assert node.made() == []


def test_two_makers_with_one_kind_of_step_are_a_defect_of_the_registration(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both have steps of kind 'Toy'"):
        Kinds([ToyKind(tmp_path / "a"), ToyKind(tmp_path / "b")])


def shares(node: ToyNode, *uids: str, configs: Sequence[Obj] = (SLICES,)) -> None:
    for uid in uids:
        node.claims.add(claim(uid, result("gpu-1", shareID=f"share-{uid}"), configs=configs))


def test_what_claims_share_goes_with_the_last_of_them(node: ToyNode, engine: PrepareEngine) -> None:
    shares(node, "u1", "u2", "u3")
    for uid in ("u1", "u2"):
        prepare(engine, uid)
    node.ribbons.fails.add("GPU-1")
    with pytest.raises(HardwareError):
        prepare(engine, "u3")
    assert node.made() == ["GPU-1"], "the claim is rolled back, and the others need it"
    unprepare(engine, "u1")
    assert node.made() == ["GPU-1"]
    unprepare(engine, "u2")
    assert (node.made(), dict(engine.entries())) == ([], {})


def test_what_two_half_done_claims_share_is_taken_back_once(node: ToyNode) -> None:
    shares(node, "u1", "u2")
    before = node.engine()
    prepare(before, "u1")
    prepare(before, "u2")
    before.stop()
    checkpoint = node.checkpoint()
    half = [replace(entry, state=ClaimState.PREPARE_STARTED) for entry in checkpoint.entries().values()]
    checkpoint.update(put=half)
    after = node.engine(start=False)
    assert after.start() == Recovered(rolled_back=("u1", "u2"))
    assert node.made() == []
    after.stop()


def test_a_wrapper_refuses_before_anything_is_changed(node: ToyNode, engine: PrepareEngine) -> None:
    shares(node, "u1")
    shares(node, "u2", configs=(slices("Short"),))
    shares(node, "u3", configs=())
    prepare(engine, "u1")
    for uid, interval in (("u2", "Short"), ("u3", "Default")):
        with pytest.raises(ConfigError, match=rf"interval: {interval} is not available on this node"):
            prepare(engine, uid)
    assert set(engine.entries()) == {"u1"}


def test_admin_access_is_not_wrapped(node: ToyNode, engine: PrepareEngine) -> None:
    shares(node, "u1")
    prepare(engine, "u1")
    node.claims.add(claim("admin", result("gpu-1", adminAccess=True), configs=[slices("Short")]))
    prepare(engine, "admin")
    assert [step.kind for step in engine.entries()["admin"].steps] == ["CDIFile"]
    unprepare(engine, "admin")
    assert node.made() == ["GPU-1"]


def test_a_prepared_claim_keeps_what_it_has_when_the_gate_goes_off(node: ToyNode) -> None:
    shares(node, "u1")
    before = node.engine()
    first = prepare(before, "u1")
    before.stop()
    node.gates = frozenset()
    after = node.engine()
    assert prepare(after, "u1") == first, "a second pod of the claim"
    shares(node, "u2")
    with pytest.raises(ConfigError, match="needs feature gate TimeSlicingSettings"):
        prepare(after, "u2")
    unprepare(after, "u1")
    assert node.made() == []
    after.stop()


def test_a_wrapper_tells_health_and_mends_too(node: ToyNode) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[SLICES]))
    before = node.engine()
    prepare(before, "u1")
    watch = Watch(node)
    troubled = TroubledDevices(watch, before.entries, node.kinds(), BOOT)
    (node.ribbons.folder / "GPU-1").rename(node.ribbons.folder / "away")
    watch.read()
    watch.read()
    assert troubled.devices == {"gpu-1": "the ribbon of gpu-1 is gone"}
    (node.ribbons.folder / "away").rename(node.ribbons.folder / "GPU-1")
    before.stop()
    (node.state / "checkpoint.json").unlink()
    after = node.engine()
    assert after.entries()["u1"].state is ClaimState.RECORD_LOST
    unprepare(after, "u1")
    assert (node.made(), node.left_overs()) == ([], [])
    after.stop()


def test_a_lost_record_is_undone_under_the_lock_of_its_gpu(node: ToyNode) -> None:
    """Its file names the device; the claim was allocated another one since."""
    node.claims.add(claim("u1", result("gpu-1")))
    before = node.engine()
    prepare(before, "u1")
    before.stop()
    (node.state / "checkpoint.json").unlink()
    node.claims.add(claim("u1", result("gpu-2")))
    after = node.engine()
    with after._locks.hold(["device-GPU-1"]):
        answer = after.prepare([ref("u1")], timeout=0.2)["u1"]
        assert "waiting for lock device-GPU-1" in str(answer)
    assert [device.device_name for device in prepare(after, "u1")] == ["gpu-2"]
    after.stop()
