"""Steps that change hardware: order, results, roll back, and a kill between any two instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from dra_driver.errors import DriverError, HardwareError, StateError
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, StepRecord
from kubelet_plugin.prepare.apply import Applier, Failure
from kubelet_plugin.prepare.kind import NothingDone
from kubelet_plugin.prepare.plan import Plan, PlannedStep
from tests.kubelet_plugin.prepare.node import BOOT, TestNode, entry


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Hardware:
    """Instances by slot; making one gives it a number that only the hardware knows. Each touch counts as a moment."""

    instances: dict[str, int] = field(default_factory=dict)
    made: int = 0
    moments: int = 0
    kill_at: int = 0
    fail: set[str] = field(default_factory=set)

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.kill_at:
            raise Killed


@dataclass(frozen=True)
class MakeInstance:
    slot: str

    kind = "Instance"

    def does(self) -> str:
        return f"make instance in {self.slot}"

    def undo_does(self) -> str:
        return f"remove the instance in {self.slot}"

    def done_when(self) -> str:
        return f"{self.slot} is taken"

    def record(self) -> StepRecord:
        return StepRecord(self.kind, {"slot": self.slot})


class InstanceRunner:
    do_needs_intent = True
    undo_needs_intent = True
    survives_reboot = False

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware

    def observe(self, step: MakeInstance, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        number = self.hardware.instances.get(step.slot)
        return None if number is None else {"number": str(number)}

    def do(self, step: MakeInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
        self.hardware.moment()
        if step.slot in self.hardware.fail:
            raise HardwareError(f"no room in {step.slot}")
        self.hardware.made += 1
        self.hardware.instances[step.slot] = self.hardware.made
        self.hardware.moment()
        return {"number": str(self.hardware.made)}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        slot = record.arguments["slot"]
        self.hardware.moment()
        if f"undo {slot}" in self.hardware.fail:
            raise HardwareError(f"{slot} is in use")
        self.hardware.instances.pop(slot, None)
        self.hardware.moment()


STEPS = (MakeInstance("a"), MakeInstance("b"))
DONE = replace(entry("u1"), steps=tuple(step.record() for step in STEPS))


def planned(*steps: MakeInstance) -> tuple[PlannedStep, ...]:
    return tuple(PlannedStep(step, step.record()) for step in steps)


PLAN = Plan(DONE, planned(*STEPS))


class Journal:
    """The durable record of the claim."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.entry: ClaimEntry | None = None

    def write(self, item: ClaimEntry | None) -> None:
        self.hardware.moment()
        self.entry = item
        self.hardware.moment()


def prepare(hardware: Hardware, journal: Journal) -> ClaimEntry | Failure:
    """What ``work`` does around ``apply``, in short."""
    applier = Applier({"Instance": InstanceRunner(hardware)}, BOOT)
    if journal.entry is not None:
        applier.undo(journal.entry, lambda _step: None)
    journal.write(replace(DONE, state=ClaimState.PREPARE_STARTED))
    outcome = applier.apply(PLAN, lambda _step: None)
    journal.write(outcome.entry if isinstance(outcome, Failure) else outcome)
    return outcome


def test_the_record_has_what_each_step_brought_about() -> None:
    hardware = Hardware()
    journal = Journal(hardware)
    outcome = prepare(hardware, journal)
    assert isinstance(outcome, ClaimEntry)
    assert [step.result for step in outcome.steps] == [{"number": "1"}, {"number": "2"}]
    assert outcome.state is ClaimState.COMPLETED
    assert hardware.instances == {"a": 1, "b": 2}


def test_a_failing_step_undoes_the_ones_before_it() -> None:
    hardware = Hardware(fail={"b"})
    journal = Journal(hardware)
    outcome = prepare(hardware, journal)
    assert isinstance(outcome, Failure)
    assert "no room in b" in str(outcome.error)
    assert outcome.entry is None
    assert hardware.instances == {}


def test_what_cannot_be_rolled_back_stays_in_the_journal() -> None:
    hardware = Hardware(fail={"b", "undo a"})
    journal = Journal(hardware)
    outcome = prepare(hardware, journal)
    assert isinstance(outcome, Failure)
    assert "no room in b" in str(outcome.error)
    assert journal.entry is not None
    assert journal.entry.state is ClaimState.PREPARE_STARTED
    assert journal.entry.steps[0].result == {"number": "1"}
    hardware.fail.clear()
    assert isinstance(prepare(hardware, journal), ClaimEntry)


def test_a_step_that_did_nothing_and_those_after_it_are_not_undone() -> None:
    """What is in the place of a step that was never done is somebody else's."""

    class Refusing(InstanceRunner):
        def do(self, step: MakeInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
            if step.slot == "b":
                self.hardware.instances.update(b=77, c=78)  # somebody was faster
                raise NothingDone(HardwareError("b is taken"))
            return super().do(step, done)

    hardware = Hardware()
    steps = (*STEPS, MakeInstance("c"))
    plan = Plan(replace(DONE, steps=tuple(step.record() for step in steps)), planned(*steps))
    outcome = Applier({"Instance": Refusing(hardware)}, BOOT).apply(plan, lambda _step: None)
    assert isinstance(outcome, Failure)
    assert "b is taken" in str(outcome.error)
    assert outcome.entry is None
    assert hardware.instances == {"b": 77, "c": 78}

    hardware = Hardware(fail={"undo a"})
    outcome = Applier({"Instance": Refusing(hardware)}, BOOT).apply(plan, lambda _step: None)
    assert isinstance(outcome, Failure)
    assert outcome.entry is not None
    assert [step.arguments["slot"] for step in outcome.entry.steps] == ["a"], "only what may have been done is left"


def test_a_failed_step_may_have_had_an_effect() -> None:
    class Late(InstanceRunner):
        def do(self, step: MakeInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
            super().do(step, done)
            raise HardwareError("timeout")

    hardware = Hardware()
    outcome = Applier({"Instance": Late(hardware)}, BOOT).apply(PLAN, lambda _step: None)
    assert isinstance(outcome, Failure)
    assert hardware.instances == {}
    assert hardware.made == 1


def test_steps_see_what_those_before_them_brought_about() -> None:
    seen: list[list[Mapping[str, str]]] = []

    class Looking(InstanceRunner):
        def do(self, step: MakeInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
            seen.append([record.result for record in done])
            return super().do(step, done)

    Applier({"Instance": Looking(Hardware())}, BOOT).apply(PLAN, lambda _step: None)
    assert seen == [[], [{"number": "1"}]]


def test_what_a_reboot_has_undone_is_left_alone() -> None:
    hardware = Hardware(instances={"a": 5})
    Applier({"Instance": InstanceRunner(hardware)}, "boot-2").undo(DONE, lambda _step: None)
    assert hardware.instances == {"a": 5}, "made since, by somebody else"
    runner = InstanceRunner(hardware)
    runner.survives_reboot = True
    Applier({"Instance": runner}, "boot-2").undo(DONE, lambda _step: None)
    assert hardware.instances == {}


def test_an_unexpected_error_is_rolled_back_too() -> None:
    hardware = Hardware()

    class Broken(InstanceRunner):
        def do(self, step: MakeInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
            super().do(step, done)
            if step.slot == "b":
                raise ZeroDivisionError
            return {}

    outcome = Applier({"Instance": Broken(hardware)}, BOOT).apply(PLAN, lambda _step: None)
    assert isinstance(outcome, Failure)
    assert "unexpected ZeroDivisionError" in str(outcome.error)
    assert hardware.instances == {}


def test_a_repeat_does_only_what_is_missing_and_is_never_rolled_back() -> None:
    hardware = Hardware(instances={"a": 7}, made=7)
    runner = InstanceRunner(hardware)
    repeat = replace(PLAN, repeats=True)
    outcome = Applier({"Instance": runner}, BOOT).apply(repeat, lambda _step: None)
    assert isinstance(outcome, ClaimEntry)
    assert [step.result for step in outcome.steps] == [{"number": "7"}, {"number": "8"}]
    del hardware.instances["b"]
    hardware.fail.add("b")
    outcome = Applier({"Instance": runner}, BOOT).apply(repeat, lambda _step: None)
    assert isinstance(outcome, Failure)
    assert hardware.instances == {"a": 7}


def test_killed_at_every_moment() -> None:
    """Whatever the moment, the journal suffices to undo everything, or to prepare the claim after all."""
    kill_at = 0
    while True:
        kill_at += 1
        for retry in (True, False):
            hardware = Hardware(kill_at=kill_at)
            journal = Journal(hardware)
            try:
                prepare(hardware, journal)
            except Killed:
                survived = False
            else:
                survived = True
            hardware.kill_at = 0
            if retry:
                outcome = prepare(hardware, journal)
                assert isinstance(outcome, ClaimEntry)
                numbers = {step.arguments["slot"]: int(step.result["number"]) for step in outcome.steps}
                assert numbers == hardware.instances
            elif journal.entry is not None:
                Applier({"Instance": InstanceRunner(hardware)}, BOOT).undo(journal.entry, lambda _step: None)
                assert hardware.instances == {}
            else:
                assert hardware.instances == {}
        if survived:
            break
    assert kill_at > 8


def test_a_step_of_a_later_version_cannot_be_undone(node: TestNode) -> None:
    with pytest.raises(StateError, match="kind 'Instance'"):
        node.applier().undo(DONE, lambda _step: None)


def test_a_plan_explains_itself() -> None:
    left = replace(DONE, state=ClaimState.PREPARE_STARTED)
    assert Plan(DONE, planned(*STEPS[:1]), undo_first=left).explain() == (
        "undo what is left of an earlier prepare (PrepareStarted)",
        "make instance in a; done when a is taken; undone by: remove the instance in a",
    )


def test_errors_are_driver_errors() -> None:
    assert issubclass(HardwareError, DriverError)
