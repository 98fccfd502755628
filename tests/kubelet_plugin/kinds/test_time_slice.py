"""Time slices through the engine, on the simulated hardware: set, shared, refused, set back, seen and never remembered."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dra_driver.errors import (
    ConfigError,
    ConflictingConfig,
    DriverError,
    HardwareError,
    PrepareTimeout,
    StateError,
    UnsupportedConfig,
)
from dra_driver.hardware.compute_policy import TimeSliceUnsupported
from dra_driver.hardware.nvidia_smi import SmiFailed, SmiHangs, SmiMissing
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.compute_mode import ComputeMode, set_compute_mode
from dra_driver.kube.interface import Obj
from dra_driver.simulation.hardware import StateFile, faults, time_slice
from dra_driver.simulation.hardware.state import SimulatedState
from kubelet_plugin.claims.entry import ClaimState, StepRecord
from kubelet_plugin.kinds.time_slice import TIME_SLICE
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.prepare.calls import prepare, unprepare
from tests.kubelet_plugin.prepare.node import claim, config, opaque, ref, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode, first_gpus

DEFAULT, SHORT, MEDIUM, LONG = range(4)
ONE, OTHER = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def slices(interval: str | None = "Long", requests: Sequence[str] = (), source: str = "FromClaim") -> Obj:
    sharing: Obj = {"strategy": "TimeSlicing"}
    if interval is not None:
        sharing["timeSlicingConfig"] = {"interval": interval}
    return opaque(config(sharing=sharing), requests, source)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SimulatedNode]:
    node = SimulatedNode(tmp_path, first_gpus("h100-sxm5-80gb", 3))
    node.gates = frozenset(("TimeSlicingSettings",))
    yield node
    node.close()


def seen(node: SimulatedNode) -> list[int]:
    """The interval of each GPU on the hardware."""
    return [gpu.time_slice for gpu in StateFile(node.state_file).read().gpus]


def modes(node: SimulatedNode) -> list[int]:
    return [gpu.compute_mode for gpu in StateFile(node.state_file).read().gpus]


def by_hand(node: SimulatedNode, index: int, interval: int) -> None:
    def change(state: SimulatedState) -> SimulatedState:
        return state.with_gpu(index, state.gpus[index].model_copy(update={"time_slice": interval}))

    StateFile(node.state_file).update(change)


def uuid_of(node: SimulatedNode, index: int) -> str:
    return node.machine.gpus[index].uuid


# -- set and set back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "number"),
    [("Default", DEFAULT), ("Short", SHORT), ("Medium", MEDIUM), ("Long", LONG), (None, DEFAULT)],
)
def test_an_interval_is_set_and_goes_with_the_claim(
    interval: str | None, number: int, node: SimulatedNode, engine: PrepareEngine
) -> None:
    set_compute_mode(uuid_of(node, 1), ComputeMode.EXCLUSIVE_PROCESS)
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices(interval)]))
    (device,) = prepare(engine, "u1")
    assert device.device_name == "gpu-1"
    assert (seen(node), modes(node)) == ([DEFAULT, number, DEFAULT], [0, 0, 0])
    entry = engine.entries()["u1"]
    wanted = {"interval": interval or "Default"}
    assert entry.steps[0] == StepRecord(TIME_SLICE, {"gpu": uuid_of(node, 1), **wanted}, wanted)
    assert [step.kind for step in entry.steps] == [TIME_SLICE, "CDIFile"], "it is set before a container can start"
    unprepare(engine, "u1")
    assert seen(node) == [DEFAULT] * 3
    assert node.left_overs() == []


def test_the_commands_are_those_of_nvidias_driver(node: SimulatedNode, engine: PrepareEngine) -> None:
    gpu = uuid_of(node, 1)
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    prepare(engine, "u1")
    assert node.smi.calls == [f"compute-policy -i {gpu} --set-timeslice 3"]
    unprepare(engine, "u1")
    assert node.smi.calls[1:] == [f"compute-policy -i {gpu} --list", f"compute-policy -i {gpu} --set-timeslice 0"]


def test_a_claim_without_sharing_touches_nothing(node: SimulatedNode, engine: PrepareEngine) -> None:
    by_hand(node, 0, MEDIUM)
    set_compute_mode(uuid_of(node, 0), ComputeMode.EXCLUSIVE_PROCESS)
    node.claims.add(claim("u1", result("gpu-0")), claim("u2", result("gpu-1"), configs=[opaque(config())]))
    prepare(engine, "u1")
    prepare(engine, "u2")
    unprepare(engine, "u1")
    unprepare(engine, "u2")
    assert (seen(node), modes(node)) == ([MEDIUM, DEFAULT, DEFAULT], [3, 0, 0])
    assert node.smi.calls == []


def test_each_gpu_of_a_claim_gets_the_interval_of_its_request(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim(
            "u1",
            result("gpu-0", "slow"),
            result("gpu-1", "fast"),
            result("gpu-2", "plain"),
            configs=[slices("Long", ["slow"]), slices("Short", ["fast"])],
        )
    )
    prepare(engine, "u1")
    assert seen(node) == [LONG, SHORT, DEFAULT]
    unprepare(engine, "u1")
    assert seen(node) == [DEFAULT] * 3


def test_a_class_may_ask_for_it(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-0"), configs=[slices("Medium", source="FromClass")]))
    prepare(engine, "u1")
    assert seen(node)[0] == MEDIUM


def test_admin_access_changes_nothing(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-0", adminAccess=True), configs=[slices("Medium")]))
    prepare(engine, "u1")
    unprepare(engine, "u1")
    assert node.smi.calls == []


def test_a_repeated_prepare_sets_only_what_is_not_set(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    first = prepare(engine, "u1")
    node.smi.calls.clear()
    assert prepare(engine, "u1") == first
    assert [call.split()[3] for call in node.smi.calls] == ["--list"]
    faults.reset_gpu(node.state_file, 1)
    assert prepare(engine, "u1") == first
    assert seen(node)[1] == LONG
    set_compute_mode(uuid_of(node, 1), ComputeMode.PROHIBITED)
    assert prepare(engine, "u1") == first
    assert modes(node)[1] == ComputeMode.DEFAULT


# -- shared ------------------------------------------------------------------------------------------------------------


def test_two_shares_of_a_gpu_the_last_one_sets_it_back(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("u1", result("gpu-1", shareID=ONE), configs=[slices()]),
        claim("u2", result("gpu-1", shareID=OTHER), configs=[slices()]),
    )
    prepare(engine, "u1")
    prepare(engine, "u2")
    unprepare(engine, "u1")
    assert seen(node)[1] == LONG, "the second still needs it"
    unprepare(engine, "u2")
    assert seen(node)[1] == DEFAULT


def test_a_share_that_asks_for_nothing_takes_what_there_is(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("u1", result("gpu-1", shareID=ONE), configs=[slices()]), claim("u2", result("gpu-1", shareID=OTHER))
    )
    prepare(engine, "u1")
    prepare(engine, "u2")
    unprepare(engine, "u1")
    assert seen(node)[1] == DEFAULT, "nobody who is left has asked for it"


def test_another_interval_on_the_same_gpu_is_refused_before_anything_is_changed(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(
        claim("u1", result("gpu-1", shareID=ONE), configs=[slices("Long")]),
        claim("u2", result("gpu-0"), result("gpu-1", shareID=OTHER), configs=[slices("Short")]),
    )
    prepare(engine, "u1")
    node.smi.calls.clear()
    with pytest.raises(ConflictingConfig) as caught:
        prepare(engine, "u2")
    assert caught.value.retryable, "the other claim may end"
    for word in (
        "claim default/u2",
        "config[0].opaque.parameters.sharing.timeSlicingConfig.interval: Short",
        "claim default/u1:u1 has asked for Long",
        "ask for Long as well, or for another GPU",
        uuid_of(node, 1),
    ):
        assert word in str(caught.value)
    assert (seen(node), node.smi.calls) == ([DEFAULT, LONG, DEFAULT], [])
    assert set(engine.entries()) == {"u1"}
    unprepare(engine, "u1")
    prepare(engine, "u2")
    assert seen(node) == [SHORT, SHORT, DEFAULT]


def test_two_requests_of_one_claim_that_disagree_about_a_gpu_are_refused(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(
        claim(
            "u1",
            result("gpu-1", "slow", shareID=ONE),
            result("gpu-1", "fast", shareID=OTHER),
            configs=[slices("Long", ["slow"]), slices("Short", ["fast"])],
        )
    )
    with pytest.raises(UnsupportedConfig, match="request fast of the same claim has asked for Short"):
        prepare(engine, "u1")
    assert (seen(node), node.smi.calls, engine.entries()) == ([DEFAULT] * 3, [], {})


def test_two_requests_that_agree_share_one_step(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("u1", result("gpu-1", "a", shareID=ONE), result("gpu-1", "b", shareID=OTHER), configs=[slices("Medium")])
    )
    prepare(engine, "u1")
    assert [step.kind for step in engine.entries()["u1"].steps] == [TIME_SLICE, "CDIFile"]
    assert seen(node)[1] == MEDIUM


# -- wrong configurations ----------------------------------------------------------------------------------------------

WRONG = [
    ({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Forever"}},
     ["sharing.timeSlicingConfig.interval", "Forever", "Default, Short, Medium, Long"]),
    ({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": 3}},
     ["sharing.timeSlicingConfig.interval", "3", "Default, Short, Medium, Long"]),
    ({"strategy": "TimeSlicing", "mpsConfig": {}}, ["sharing.mpsConfig", "remove it, or set strategy to MPS"]),
    ({"strategy": "MPS", "timeSlicingConfig": {}},
     ["sharing.timeSlicingConfig", "remove it, or set strategy to TimeSlicing"]),
]  # fmt: skip


@pytest.mark.parametrize(("sharing", "words"), WRONG, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_a_wrong_configuration_is_refused_by_path_value_range_and_remedy(
    sharing: Obj, words: list[str], node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[opaque(config(sharing=sharing))]))
    with pytest.raises(ConfigError) as caught:
        prepare(engine, "u1")
    for word in [*words, "config[0].opaque.parameters", "default/u1", "correct it in the claim"]:
        assert word in str(caught.value)
    assert (node.smi.calls, engine.entries()) == ([], {})


def test_an_interval_of_null_is_the_default(node: SimulatedNode, engine: PrepareEngine) -> None:
    """NVIDIA's driver ends with a nil pointer there (kubernetes-sigs/dra-driver-nvidia-gpu#1384)."""
    nil = {"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": None}}
    node.claims.add(claim("u1", result("gpu-1"), configs=[opaque(config(sharing=nil))]))
    by_hand(node, 1, SHORT)
    prepare(engine, "u1")
    assert seen(node)[1] == DEFAULT


def test_without_its_gate_it_is_refused(node: SimulatedNode, engines: list[PrepareEngine]) -> None:
    node.gates = frozenset()
    engines.append(node.engine())
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    with pytest.raises(UnsupportedConfig, match="needs feature gate TimeSlicingSettings, which is off"):
        prepare(engines[0], "u1")


def test_a_mig_device_has_no_interval_and_none_is_set(node: SimulatedNode, engine: PrepareEngine) -> None:
    mig = opaque(config("MigDeviceConfig", sharing={"strategy": "TimeSlicing"}))
    node.claims.add(claim("u1", result("gpu-1-mig-1g10gb-19-0"), configs=[mig]))
    prepare(engine, "u1")
    unprepare(engine, "u1")
    assert node.smi.calls == []


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_gpu_without_an_interval_is_refused_with_its_reason_and_leaves_nothing(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    for function in (time_slice.SET, time_slice.LIST):
        faults.inject_error(node.state_file, function, Return.NOT_SUPPORTED)
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    with pytest.raises(TimeSliceUnsupported, match="leave sharing out"):
        prepare(engine, "u1")
    assert engine.entries() == {}
    assert node.left_overs() == []


def test_what_is_not_supported_any_more_keeps_no_claim_from_ending(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    prepare(engine, "u1")
    faults.inject_error(node.state_file, time_slice.LIST, Return.NOT_SUPPORTED)
    unprepare(engine, "u1")
    assert engine.entries() == {}


def test_a_failure_at_the_second_gpu_sets_the_first_one_back(node: SimulatedNode, engine: PrepareEngine) -> None:
    faults.inject_error(node.state_file, time_slice.SET, Return.UNKNOWN, gpu=2, times=1)
    node.claims.add(claim("u1", result("gpu-1", "a"), result("gpu-2", "b"), configs=[slices()]))
    with pytest.raises(HardwareError, match=r"for GPU 2 : Unknown Error"):
        prepare(engine, "u1")
    assert (seen(node), engine.entries()) == ([DEFAULT] * 3, {})
    prepare(engine, "u1")
    assert seen(node) == [DEFAULT, LONG, LONG]


def test_a_failure_of_a_later_step_sets_it_back(
    node: SimulatedNode, engine: PrepareEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_then = []

    def fails(*_arguments: object) -> None:
        seen_then.append(seen(node)[1])
        raise StateError("no space left")

    monkeypatch.setattr(node.cdi, "write", fails)
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    with pytest.raises(StateError, match="no space left"):
        prepare(engine, "u1")
    assert (seen_then, seen(node)[1], engine.entries()) == ([LONG], DEFAULT, {})


def test_a_rollback_leaves_what_another_share_needs(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(
        claim("u1", result("gpu-1", shareID=ONE), configs=[slices()]),
        claim("u2", result("gpu-1", "a", shareID=OTHER), result("gpu-2", "b"), configs=[slices()]),
    )
    prepare(engine, "u1")
    faults.inject_error(node.state_file, time_slice.SET, Return.UNKNOWN, gpu=2)
    with pytest.raises(HardwareError):
        prepare(engine, "u2")
    assert seen(node) == [DEFAULT, LONG, DEFAULT]


def test_without_nvidia_smi_the_claim_is_told_so_and_nothing_is_left(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    node.smi.error = SmiMissing("no nvidia-smi under driver root /driver-root", hint="install it")
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]), claim("u2", result("gpu-2")))
    with pytest.raises(SmiMissing):
        prepare(engine, "u1")
    assert engine.entries() == {}, "its pod can end"
    prepare(engine, "u2")
    node.smi.error = None
    prepare(engine, "u1")
    node.smi.error = SmiMissing("no nvidia-smi under driver root /driver-root")
    with pytest.raises(SmiMissing):
        unprepare(engine, "u1")
    assert engine.entries()["u1"].state is ClaimState.COMPLETED, "what was set stays known"
    node.smi.error = None
    unprepare(engine, "u1")
    assert seen(node)[1] == DEFAULT


def test_a_broken_nvidia_smi_leaves_no_claim_that_cannot_end(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.smi.error = SmiFailed("cannot run /driver-root/usr/bin/nvidia-smi: Exec format error", code=8, output="")
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    with pytest.raises(SmiFailed, match="Exec format error"):
        prepare(engine, "u1")
    assert engine.entries() == {}


def test_one_that_was_killed_in_the_middle_may_have_set_it(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.smi.error = SmiFailed("was ended by signal 11", code=-11, output="")
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    with pytest.raises(SmiFailed, match="signal 11"):
        prepare(engine, "u1")
    assert engine.entries()["u1"].state is ClaimState.PREPARE_STARTED
    by_hand(node, 1, LONG)
    node.smi.error = None
    unprepare(engine, "u1")
    assert (seen(node)[1], engine.entries()) == (DEFAULT, {})


def test_one_that_hangs_is_an_error_to_try_again_and_other_gpus_go_on(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    hangs = SmiHangs("nvidia-smi compute-policy did not end within 10 s and was killed")
    node.smi.error = hangs
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]), claim("u2", result("gpu-2"), configs=[slices()]))
    with pytest.raises(SmiHangs) as caught:
        prepare(engine, "u1")
    assert caught.value.retryable
    assert engine.entries()["u1"].state is ClaimState.PREPARE_STARTED, "it may have been set, and must be undone"
    node.smi.error = None
    prepare(engine, "u2")
    prepare(engine, "u1")
    assert seen(node) == [DEFAULT, LONG, LONG]


def test_while_one_hangs_its_caller_is_told_the_step_and_other_gpus_are_prepared(
    node: SimulatedNode, engine: PrepareEngine
) -> None:
    ends = threading.Event()
    node.smi.held[uuid_of(node, 1)] = ends
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]), claim("u2", result("gpu-2"), configs=[slices()]))
    try:
        told = engine.prepare([ref("u1")], timeout=0.0)["u1"]
        assert isinstance(told, PrepareTimeout)
        prepare(engine, "u2")
        eventually(lambda: uuid_of(node, 1) in str(engine.prepare([ref("u1")], timeout=0.0)["u1"]))
        told = engine.prepare([ref("u1")], timeout=0.0)["u1"]
        assert isinstance(told, PrepareTimeout)
        assert f"set the time-slice interval of GPU {uuid_of(node, 1)} to Long" in str(told)
    finally:
        ends.set()
    prepare(engine, "u1")
    assert seen(node) == [DEFAULT, LONG, LONG]


def test_a_gpu_that_is_lost_keeps_no_claim_from_ending(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    prepare(engine, "u1")
    faults.lose_gpu(node.state_file, 1)
    unprepare(engine, "u1")
    assert engine.entries() == {}
    assert node.left_overs() == []


# -- restarts, reboots, lost records -----------------------------------------------------------------------------------


def restarted(node: SimulatedNode, engines: list[PrepareEngine], boot_id: str = "boot-1") -> PrepareEngine:
    engines[-1].stop()
    engines.append(node.engine(boot_id))
    return engines[-1]


def test_a_restart_sets_what_was_reset_meanwhile(
    node: SimulatedNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    prepare(engine, "u1")
    faults.reset_gpu(node.state_file, 1)
    after = restarted(node, engines)
    assert seen(node)[1] == LONG
    unprepare(after, "u1")
    assert seen(node)[1] == DEFAULT


def test_a_gate_that_is_switched_off_leaves_what_is_prepared_and_sets_it_back(
    node: SimulatedNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    first = prepare(engine, "u1")
    node.gates = frozenset()
    after = restarted(node, engines)
    assert prepare(after, "u1") == first
    assert seen(node)[1] == LONG
    unprepare(after, "u1")
    assert seen(node)[1] == DEFAULT


@pytest.mark.parametrize("resets", [True, False], ids=["hardware that is reset by it", "hardware that is not"])
def test_a_reboot_leaves_no_interval(
    resets: bool, node: SimulatedNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    prepare(engine, "u1")
    if resets:
        faults.reboot(node.state_file, "boot-2")
    after = restarted(node, engines, "boot-2")
    assert (seen(node), after.entries()) == ([DEFAULT] * 3, {})
    prepare(after, "u1")
    assert seen(node)[1] == LONG


def test_a_claim_of_an_earlier_boot_takes_nothing_from_one_of_this(
    node: SimulatedNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    """The kubelet may prepare the new claim before the old one is put right: its GPU did not answer at the start."""
    node.claims.add(
        claim("u1", result("gpu-1"), configs=[slices()]), claim("u2", result("gpu-1"), configs=[slices("Short")])
    )
    prepare(engine, "u1")
    node.smi.error = SmiHangs("nvidia-smi did not end")
    after = restarted(node, engines, "boot-2")
    assert set(after.entries()) == {"u1"}
    node.smi.error = None
    prepare(after, "u2")
    assert seen(node)[1] == SHORT
    assert after.put_right()
    assert seen(node)[1] == SHORT
    unprepare(after, "u2")
    assert seen(node)[1] == DEFAULT


def test_a_claim_whose_record_was_lost_leaves_no_interval(
    node: SimulatedNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]), claim("u2", result("gpu-2")))
    prepare(engine, "u1")
    prepare(engine, "u2")
    engine.stop()
    (node.state / "checkpoint.json").write_bytes(b"{}")
    after = restarted(node, engines)
    assert after.entries()["u1"].state is ClaimState.RECORD_LOST
    unprepare(after, "u1")
    assert seen(node) == [DEFAULT] * 3
    node.smi.error = SmiMissing("no nvidia-smi")
    unprepare(after, "u2")
    assert after.entries() == {}


def test_a_lost_record_is_made_anew_by_a_repeated_prepare(
    node: SimulatedNode, engine: PrepareEngine, engines: list[PrepareEngine]
) -> None:
    node.claims.add(claim("u1", result("gpu-1"), configs=[slices()]))
    prepare(engine, "u1")
    engine.stop()
    (node.state / "checkpoint.json").write_bytes(b"{}")
    after = restarted(node, engines)
    prepare(after, "u1")
    assert after.entries()["u1"].steps[0].arguments["interval"] == "Long"
    unprepare(after, "u1")
    assert seen(node)[1] == DEFAULT


def test_a_damaged_record_stops_its_claim_with_a_sentence(node: SimulatedNode, engine: PrepareEngine) -> None:
    kinds = node.kinds()
    with pytest.raises(DriverError, match="arguments that cannot be read"):
        kinds.again(StepRecord(TIME_SLICE, {"gpu": "GPU-1", "interval": "Forever"}))
