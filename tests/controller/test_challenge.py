"""Challenge and answer, the decision alone."""

from __future__ import annotations

from controller.challenge import (
    PROOF_SECONDS,
    ChallengeState,
    ChallengeTimings,
    Decision,
    Step,
    decide,
    is_outstanding,
    issued,
    saw_answer,
    saw_wipe,
    used_up,
)

TIMINGS = ChallengeTimings(settle=1.0, jitter=2.0)
NEW = ChallengeState()


def test_first_creation_asks_at_once() -> None:
    assert decide(NEW, challenge="", answer="", now=5) == Decision(Step.ISSUE)


def test_answer_to_another_challenge_is_none() -> None:
    assert decide(NEW, challenge="old", answer="old", now=5) == Decision(Step.ISSUE)
    asked = issued(NEW, "mine", 5)
    assert decide(asked, challenge="mine", answer="old", now=6) == Decision(Step.WAIT)
    assert decide(asked, challenge="mine", answer="mine", now=6) == Decision(Step.CREATE)


def test_answer_proves_only_for_deletions_seen_before_the_challenge() -> None:
    wiped = saw_wipe(NEW, 4, 0.0, TIMINGS)
    asked = issued(wiped, "mine", 5)
    assert decide(asked, challenge="mine", answer="mine", now=6).step is Step.CREATE
    again = saw_wipe(asked, 5, 0.0, TIMINGS)
    assert not is_outstanding(again)
    assert decide(again, challenge="mine", answer="mine", now=5.5).step is Step.WAIT
    assert decide(again, challenge="mine", answer="mine", now=7).step is Step.ISSUE


def test_answer_that_could_not_be_used_soon_is_asked_for_again() -> None:
    """A wipe that finds no slices is not seen, so an old answer says nothing about now."""
    asked = issued(NEW, "mine", 5)
    assert saw_answer(asked, "other", 8) == asked
    answered = saw_answer(asked, "mine", 100)
    assert saw_answer(answered, "mine", 110) == answered
    in_time, late = 100 + PROOF_SECONDS, 101 + PROOF_SECONDS
    assert decide(answered, challenge="mine", answer="mine", now=in_time) == Decision(Step.CREATE)
    assert decide(answered, challenge="mine", answer="mine", now=late) == Decision(Step.ISSUE)
    again = issued(answered, "next", late)
    assert decide(again, challenge="next", answer="mine", now=late) == Decision(Step.WAIT)


def test_proof_is_used_up_when_nothing_is_missing() -> None:
    asked = issued(NEW, "mine", 5)
    assert decide(used_up(asked), challenge="mine", answer="mine", now=6) == Decision(Step.ISSUE)


def test_wipe_of_several_slices_is_one_and_settles_first() -> None:
    state = NEW
    for now in (10.0, 10.4, 11.2):
        state = saw_wipe(state, now, 0.5, TIMINGS)
    assert state.wipes == 1
    assert decide(state, challenge="", answer="", now=11.2) == Decision(Step.WAIT, 2.0)
    assert decide(state, challenge="", answer="", now=13.2) == Decision(Step.ISSUE)


def test_pauses_double_while_slices_are_deleted_as_soon_as_they_are_back() -> None:
    state, pauses, now = NEW, [], 0.0
    for _ in range(8):
        now += state.pause + 0.9
        state = saw_wipe(state, now, 1.0, TIMINGS)
        pauses.append(state.pause)
    assert pauses == [3, 5, 9, 17, 30, 30, 30, 30]
    assert saw_wipe(state, now + state.pause + 1, 1.0, TIMINGS).pause == 3


def test_kubelet_that_restarts_again_and_again_gets_its_slices_back_each_time_as_fast() -> None:
    state, now = NEW, 0.0
    for _ in range(20):
        now += TIMINGS.settle + TIMINGS.jitter + 2
        state = saw_wipe(state, now, 1.0, TIMINGS)
        assert state.pause == TIMINGS.settle + TIMINGS.jitter


def test_challenge_that_the_inventory_does_not_show_is_written_again() -> None:
    asked = issued(NEW, "mine", 5)
    assert decide(asked, challenge="", answer="", now=7) == Decision(Step.WAIT, 3.0)
    assert decide(asked, challenge="other", answer="other", now=10) == Decision(Step.ISSUE)


def test_unanswered_challenge_waits_without_looking_again() -> None:
    asked = issued(NEW, "mine", 5)
    assert decide(asked, challenge="mine", answer="", now=10_000) == Decision(Step.WAIT, None)
