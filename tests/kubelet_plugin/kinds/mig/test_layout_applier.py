"""Named layouts on hardware: brought about, kept, refused; never under a claim; completed after a crash anywhere.

The hardware is the strict fake of this folder, on recorded machines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.mig_layouts import decode
from api.mig_policy import MigMode, MigRuleSettings, MigSettings
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.errors import HardwareError, HardwareUnavailable, StateError
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import PlacementOccupied
from dra_driver.kube.interface import EVENTS
from dra_driver.observability.events import EventRecorder, ObjectRef
from dra_driver.simulation.store import EmbeddedApi
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice
from kubelet_plugin.claims.model import ClaimRef, Operation, PreparedDevice
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.kinds.mig.layout import LayoutOutcome, LayoutState
from kubelet_plugin.kinds.mig.layout_applier import LayoutApplier
from kubelet_plugin.kinds.mig.layout_events import LayoutEvents
from tests.devices.recorded import mig_machines, recorded
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.kinds.mig.fake import FakeMig, Fault
from tests.long_runs import steps

HOPPER, AMPERE = "h100-sxm5-80gb", "a100-sxm4-40gb"
BALANCED = {"1g.10gb": 2, "2g.20gb": 1, "3g.40gb": 1}
BOOT = "boot-1"


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Claims:
    """The prepare engine's checkpoint and locks."""

    known: dict[str, ClaimEntry] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    error: Exception | None = None

    def entries(self) -> Mapping[str, ClaimEntry]:
        if self.error:
            raise self.error
        return self.known

    @contextmanager
    def try_gpu(self, gpu_uuid: str) -> Iterator[bool]:
        yield gpu_uuid not in self.busy

    def hold(self, name: str, device: str, gpu: str = "", *, boot: str = BOOT, admin: bool = False) -> None:
        answer = PreparedDevice(("r",), "node-0", device, ())
        ref = ClaimRef("ml", name, f"uid-{name}")
        self.known[ref.uid] = ClaimEntry(ref, ClaimState.COMPLETED, boot, (HeldDevice(answer, gpu, admin),), ())


class Node:
    """One node with its fake hardware, and as many appliers as a test needs, one after the other."""

    def __init__(
        self, machine: str = HOPPER, gpus: int = 1, *, entries: list[dict[str, Any]] | None = None, mig_on: bool = False
    ) -> None:
        self.base = recorded(machine, gpus, mig_on=mig_on)
        self.mig = FakeMig(self.base)
        self.claims = Claims()
        self.outcomes: list[LayoutOutcome] = []
        self.scans = 0
        self.readings = 0
        self.unavailable = False
        self.changed: list[Callable[[], None]] = []
        self.read: list[Callable[[], None]] = []
        self.layout(*(entries or [{"mig-devices": BALANCED}]))

    def layout(self, *entries: dict[str, Any]) -> None:
        full = [{"devices": "all", "mig-enabled": True, **entry} for entry in entries]
        self.settings = MigSettings(
            rules=[MigRuleSettings.model_validate({"mode": "static", "layout": "x"})],
            layouts=decode({"version": "v1", "mig-configs": {"x": full}}),
        )

    def applier(self, rules: MigPolicy | None = None) -> LayoutApplier:
        policy = rules or MigPolicy((MigRule(mode=MigMode.STATIC, layout="x"),))
        return LayoutApplier(
            self.settings,
            NodePolicy("node-0", BOOT, DevicePolicy(mig=policy)),
            self,
            self.mig,
            self.claims,
            self,
            retry=0.01,
        )

    # -- what the applier sees of the hardware watch, and whom it tells -----------------------------------------------

    def machine(self) -> Machine:
        if self.unavailable:
            raise HardwareUnavailable("not yet")
        return self.mig.machine(self.base)

    def request_scan(self) -> None:
        self.scans += 1

    def on_change(self, listener: Callable[[], None]) -> None:
        self.changed.append(listener)

    def on_reading(self, listener: Callable[[], None]) -> None:
        self.read.append(listener)

    def layout_outcome(self, outcome: LayoutOutcome) -> None:
        self.outcomes.append(outcome)

    # -- what tests look at -------------------------------------------------------------------------------------------

    def there(self, gpu: str = "GPU-0") -> list[tuple[str, int, tuple[int, ...]]]:
        return [
            (each.profile_name, each.placement.start, tuple(compute.slices for compute in each.compute_instances))
            for each in self.mig.everything().get(gpu, ())
        ]

    def once(self) -> tuple[LayoutState, str]:
        """One pass; state and message of the first GPU."""
        applier = self.applier()
        applier.run_once()
        condition = applier.condition()
        assert condition is not None
        last = self.outcomes[-1]
        assert condition.status == ("True" if last.state.settled else "False")
        return last.state, last.message


BALANCED_THERE = [("2g.20gb", 0, (2,)), ("1g.10gb", 2, (1,)), ("1g.10gb", 3, (1,)), ("3g.40gb", 4, (3,))]


def test_an_empty_gpu_gets_its_layout_and_then_nothing_happens() -> None:
    node = Node()
    applier = node.applier()
    assert applier.run_once() is not False
    assert node.there() == BALANCED_THERE
    assert node.scans == 1
    calls = len(node.mig.calls)
    assert applier.run_once()
    assert set(node.mig.calls[calls:]) == {"mode", "instances"}
    assert node.scans == 1
    assert [(each.state, each.changed) for each in node.outcomes] == [(LayoutState.APPLIED, True)]


def test_what_fits_stays_and_what_does_not_goes_whoever_made_it() -> None:
    node = Node()
    kept = node.mig.by_hand("GPU-0", 9, 4)
    node.mig.by_hand("GPU-0", 15, 0)
    assert node.once() == (LayoutState.APPLIED, "")
    assert node.there() == BALANCED_THERE
    assert kept in node.mig.everything()["GPU-0"]


def test_parts_of_gpu_instances() -> None:
    node = Node(entries=[{"mig-devices": {"1c.3g.40gb": 2, "2c.3g.40gb": 1}}])
    assert node.once() == (LayoutState.APPLIED, "")
    assert node.there() == [("3g.40gb", 0, (2, 1)), ("3g.40gb", 4, (1,))]
    node.layout({"mig-devices": {"1c.3g.40gb": 3, "3g.40gb": 1}})
    assert node.once() == (LayoutState.APPLIED, "")
    assert sorted(compute for *_, compute in node.there()) == [(1, 1, 1), (3,)]


def test_mig_mode_off_is_a_layout_too() -> None:
    node = Node(mig_on=True, entries=[{"mig-enabled": False}])
    node.mig.by_hand("GPU-0", 19, 3)
    assert node.once() == (LayoutState.APPLIED, "")
    assert node.there() == []
    assert node.mig.enabled() == set()
    assert node.once() == (LayoutState.APPLIED, "")


def test_no_devices_leaves_mode_on() -> None:
    node = Node(entries=[{"mig-devices": {}}])
    assert node.once() == (LayoutState.APPLIED, "")
    assert node.mig.enabled() == {"GPU-0"}


def test_each_gpu_has_its_entry_or_is_left_alone() -> None:
    node = Node(
        gpus=3, entries=[{"devices": [0], "mig-devices": {"7g.80gb": 1}}, {"devices": [2], "mig-enabled": False}]
    )
    node.mig.by_hand("GPU-1", 19, 3)
    applier = node.applier()
    assert applier.run_once()
    assert (node.there("GPU-0"), node.there("GPU-1")) == ([("7g.80gb", 0, (7,))], [("1g.10gb", 3, (1,))])
    condition = applier.condition()
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "Applied")
    assert condition.message == (
        "gpu-1: layout x: it has no entry for this GPU (index 1, PCI id 0x233010de), which is left as it is"
    )


def test_a_layout_that_cannot_fit_changes_nothing_and_says_what_was_tried() -> None:
    node = Node(entries=[{"mig-devices": {"3g.40gb": 2, "1g.10gb": 1}}])
    node.mig.by_hand("GPU-0", 19, 3)
    before = node.mig.everything()
    assert node.once() == (
        LayoutState.REFUSED,
        (
            "2x 3g.40gb, 1x 1g.10gb do not fit on NVIDIA H100 80GB HBM3; tried: "
            "3g.40gb at 0, 3g.40gb at 4 leaves no place for 1x 1g.10gb"
        ),
    )
    assert node.mig.everything() == before
    node.layout({"mig-devices": {"1g.5gb": 1}})
    assert node.once()[1].startswith("NVIDIA H100 80GB HBM3 has no MIG profile 1g.5gb, only 1g.10gb, ")


# -- claims -------------------------------------------------------------------------------------------------------------


def test_a_gpu_that_claims_hold_waits_for_them_by_name() -> None:
    node = Node(gpus=2)
    node.claims.hold("train", "gpu-0-mig-1g10gb-19-3", "GPU-0")
    node.claims.hold("lost", "gpu-0", "")
    node.claims.hold("other", "gpu-1", "GPU-1", boot="boot-0")
    node.claims.hold("monitor", "gpu-1", "GPU-1", admin=True)
    node.mig.by_hand("GPU-0", 19, 3)
    applier = node.applier()
    assert not applier.run_once()
    assert node.there("GPU-0") == [("1g.10gb", 3, (1,))]
    assert node.there("GPU-1") == BALANCED_THERE
    condition = applier.condition()
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "WaitingForClaims")
    assert condition.message == ("gpu-0: layout x: waits for claims ml/lost, ml/train on it to end")
    node.claims.known.clear()
    assert applier.run_once()
    assert node.there("GPU-0") == BALANCED_THERE


def test_claims_on_a_gpu_that_has_its_layout_are_no_matter() -> None:
    node = Node()
    node.once()
    node.claims.hold("train", "gpu-0-mig-1g10gb-19-3", "GPU-0")
    assert node.once() == (LayoutState.APPLIED, "")


def test_a_gpu_on_which_a_claim_is_being_prepared_is_left_for_the_next_pass() -> None:
    node = Node()
    node.claims.busy.add("GPU-0")
    assert node.once() == (LayoutState.WAITING, "a claim is being prepared or unprepared on it")
    assert node.mig.calls == []


@pytest.mark.parametrize(
    ("mig_on", "entry", "word"),
    [(False, {"mig-devices": {"1g.5gb": 1}}, "on"), (True, {"mig-enabled": False}, "off")],
)
def test_a_mode_change_that_needs_a_reset_is_refused(mig_on: bool, entry: dict[str, Any], word: str) -> None:
    node = Node(AMPERE, mig_on=mig_on, entries=[entry])
    number = int(word == "on")
    how = f"drain the node, nvidia-smi -i GPU-0 -mig {number}, nvidia-smi -i GPU-0 --gpu-reset"
    text = f"MIG mode must be switched {word}, which needs a reset of the GPU, and"
    assert node.once() == (LayoutState.NEEDS_RESET, f"{text} no claim runs on it; {how}")
    node.claims.hold("a", "gpu-0", "GPU-0")
    node.claims.hold("b", "gpu-0", "GPU-0")
    assert node.once() == (LayoutState.NEEDS_RESET, f"{text} claims ml/a, ml/b run on it; {how}")


def test_an_ampere_in_mig_mode_gets_its_layout() -> None:
    node = Node(AMPERE, mig_on=True, entries=[{"mig-devices": {"3g.20gb": 2}}])
    assert node.once() == (LayoutState.APPLIED, "")


# -- hardware that says no ----------------------------------------------------------------------------------------------


def test_what_the_hardware_refuses_is_told_and_tried_again() -> None:
    node = Node()
    node.mig.refused.add(("GPU-0", 9, 4))
    state, message = node.once()
    assert state is LayoutState.FAILED
    assert "NVML_ERROR_INSUFFICIENT_RESOURCES" in message
    node.mig.refused.clear()
    assert node.once() == (LayoutState.APPLIED, "")


def test_an_instance_in_use_stays_until_its_process_ends() -> None:
    node = Node()
    stranger = node.mig.by_hand("GPU-0", 0, 0)
    node.mig.in_use.add(stranger.compute_instances[0].uuid)
    assert node.once() == (LayoutState.FAILED, "compute instance 0 is in use")
    node.mig.in_use.clear()
    assert node.once() == (LayoutState.APPLIED, "")


def test_a_driver_that_lists_profiles_only_in_mig_mode() -> None:
    """Up to driver 535: mode goes on first, and the next reading has the profiles."""
    node = Node()
    full = node.base
    gpu = full.gpus[0]
    assert gpu.mig is not None
    node.base = replace(full, gpus=(replace(gpu, mig=replace(gpu.mig, profiles=())),))
    assert node.once() == (LayoutState.FAILED, "MIG mode is on now, and the profiles are read next")
    node.base = full
    assert node.once() == (LayoutState.APPLIED, "")
    assert node.there() == BALANCED_THERE


FUNCTIONS = (
    "mode", "instances", "set_mode", "create_gpu_instance", "create_compute_instance",
    "destroy_compute_instance", "destroy_gpu_instance",
)  # fmt: skip


@pytest.mark.parametrize("error", [Killed, lambda: HardwareError("NVML_ERROR_UNKNOWN")])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_after_a_crash_or_an_error_anywhere_the_next_pass_completes_it(
    function: str, after: bool, error: Callable[[], BaseException]
) -> None:
    """A GPU with MIG mode off has nothing to destroy, so each function meets one of two beginnings."""
    for skipped in range(8):
        node = Node()
        if function != "set_mode":
            node.mig.by_hand("GPU-0", 5, 0)
            node.mig.by_hand("GPU-0", 15, 4)
        with _failing(node.mig, Fault(function, error, after), skipped), suppress(Killed):
            node.applier().run_once()
        applier = node.applier()
        assert applier.run_once()
        assert {profile for profile, *_ in node.there()} == set(BALANCED)
        assert len(node.there()) == 4
        assert all(len(compute) == 1 for *_, compute in node.there())
        calls = len(node.mig.calls)
        assert applier.run_once()
        assert set(node.mig.calls[calls:]) == {"mode", "instances"}


@contextmanager
def _failing(mig: FakeMig, fault: Fault, skipped: int) -> Iterator[None]:
    """Here, the call of the fault's function after ``skipped`` others fails."""
    real: Callable[..., Any] = getattr(mig, fault.function)
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == skipped + 1:
            mig.faults.append(fault)
        return real(*arguments)

    setattr(mig, fault.function, failing)
    yield
    setattr(mig, fault.function, real)
    mig.faults.clear()


@given(st.data())
@settings(max_examples=steps(150, 37), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_from_any_state_to_any_layout_on_every_machine(data: st.DataObject) -> None:
    """What fits is brought about from whatever is there, with a failure on the way; what does not changes nothing."""
    name = data.draw(st.sampled_from(mig_machines()))
    node = Node(name, mig_on=True, entries=[{"mig-devices": {}}])
    mig = node.base.gpus[0].mig
    assert mig is not None
    spots = [(profile.id, place.start) for profile in mig.profiles for place in profile.placements]
    for profile_id, start in data.draw(st.lists(st.sampled_from(spots), max_size=6)):
        try:
            node.mig.by_hand("GPU-0", profile_id, start)
        except PlacementOccupied:
            continue
    names = [profile.name for profile in mig.profiles]
    wanted = data.draw(st.dictionaries(st.sampled_from(names), st.integers(1, 3), min_size=1, max_size=3))
    node.layout({"mig-devices": wanted})
    before = node.mig.everything()
    fault = Fault(data.draw(st.sampled_from(FUNCTIONS)), after=data.draw(st.booleans()))
    with _failing(node.mig, fault, data.draw(st.integers(0, 5))):
        node.applier().run_once()
    node.applier().run_once()
    last = node.outcomes[-1]
    if last.state is LayoutState.REFUSED:
        assert node.mig.everything() == before
    else:
        assert last.state is LayoutState.APPLIED, last
        found = [profile for profile, _start, _compute in node.there()]
        assert {profile: found.count(profile) for profile in found} == wanted
        assert all(len(compute) == 1 for *_, compute in node.there())


# -- the thread ---------------------------------------------------------------------------------------------------------


@contextmanager
def running(applier: LayoutApplier) -> Iterator[LayoutApplier]:
    applier.start()
    try:
        yield applier
    finally:
        applier.stop()


def test_without_a_rule_there_is_no_thread_and_no_condition() -> None:
    node = Node()
    with running(node.applier(MigPolicy())) as applier:
        assert "mig-layouts" not in {thread.name for thread in threading.enumerate()}
        assert not applier.wanted
        assert not applier.pending
        assert applier.condition() is None
    assert node.changed == []


def test_the_thread_applies_at_the_start_and_when_a_claim_ends() -> None:
    node = Node()
    node.claims.hold("train", "gpu-0", "GPU-0")
    told = threading.Event()
    applier = node.applier()
    applier.on_change(told.set)
    with running(applier):
        assert told.wait(5)
        assert applier.condition() is not None
        assert node.there() == []
        node.claims.known.clear()
        applier.finished(Operation.UNPREPARE, 0.1, ())
        eventually(lambda: node.there() == BALANCED_THERE)


def test_the_first_state_is_told_only_after_the_reading_that_shows_it() -> None:
    node = Node()
    applier = node.applier()
    told = [applier.pending]
    applier.on_change(lambda: told.append(applier.pending))
    node.readings = 4  # under way while the layout is applied: it may have begun before
    applier.run_once()
    for listener in node.read:
        listener()
    assert told == [True, True]
    node.readings = 5
    for listener in node.read:
        listener()
    assert told == [True, True, False]


def test_a_pass_before_that_reading_does_not_take_its_news_away() -> None:
    node = Node()
    applier = node.applier()
    told: list[bool] = []
    applier.run_once()
    applier.on_change(lambda: told.append(applier.pending))
    applier.run_once()  # the hardware has changed: whoever is told of it comes before the listeners of the reading
    assert applier.pending
    node.readings += 1
    for listener in node.read:
        listener()
    assert told == [False]


def test_a_change_by_hand_is_mended() -> None:
    node = Node()
    with running(node.applier()):
        eventually(lambda: node.there() == BALANCED_THERE)
        (first, *_) = node.mig.everything()["GPU-0"]
        node.mig.destroy_by_hand("GPU-0", first.id)
        for listener in node.changed:
            listener()
        eventually(lambda: node.there() == BALANCED_THERE)


def test_the_thread_outlives_what_cannot_be_read() -> None:
    node = Node()
    node.unavailable, node.claims.error = True, StateError("no checkpoint")
    with running(node.applier()) as applier:
        eventually(lambda: applier.pending)
        node.unavailable = False
        node.claims.error = None
        eventually(lambda: node.there() == BALANCED_THERE)


def test_people_are_told_by_events_on_the_node() -> None:
    api = EmbeddedApi()
    recorder = EventRecorder(api, "plugin", "node-0")
    recorder.start()
    events = LayoutEvents(recorder, ObjectRef("v1", "Node", "node-0"))
    events.layout_outcome(LayoutOutcome("gpu-0", "x", LayoutState.APPLIED, changed=True))
    events.layout_outcome(LayoutOutcome("gpu-1", "x", LayoutState.APPLIED))
    events.layout_outcome(LayoutOutcome("gpu-2", "x", LayoutState.REFUSED, "too much"))
    events.layout_outcome(LayoutOutcome("gpu-3", "x", LayoutState.NO_ENTRY, "left alone"))
    recorder.stop()
    found = {(event["type"], event["reason"], event["message"]) for event in api.list(EVENTS).items}
    assert found == {
        ("Normal", "MigLayoutApplied", "gpu-0: layout x: applied"),
        ("Warning", "MigLayoutDoesNotFit", "gpu-2: layout x: too much"),
    }
