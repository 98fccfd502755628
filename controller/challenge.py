"""When slices that are not there may be created: only on proof that the node's plugin is registered with its kubelet.

The kubelet deletes a node's slices at its start and 30 s after it lost the plugin; that keeps pods off a node where
they could not be prepared. To create them again blindly would undo that. So the controller writes a random challenge
into the NodeInventory, and the plugin copies it to its status only while a kubelet connection is alive.

An answer proves for the deletions that were seen before the challenge was issued. A late second wipe (the kubelet's
cleanup races with its registration) therefore asks for a new one. Each proof serves until the pool is whole
again, but not for long.

The decision is a pure function of a small state; who writes and waits is the publisher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto

NEVER = -math.inf

# A wipe that comes so soon after the slices could be back is one of a row: somebody deletes what we create. A kubelet
# that restarts every few seconds is not, and its slices must be back at once each time.
_ROW_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0
# A challenge that the watch has not shown by then was overwritten or lost.
LOST_SECONDS = 5.0
# An answer that could not be used by then (the server refused, or was away) proves nothing any more: the kubelet wipes
# 30 s after it lost the plugin, and a wipe that finds no slices is not seen.
PROOF_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ChallengeTimings:
    """``settle``: seconds without another deletion before a challenge is written, since a wipe is several deletions.
    ``jitter``: at most so many random seconds more, doubled by each wipe that follows another at once."""

    settle: float = 0.2
    jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class ChallengeState:
    """Of one pool, in memory only: a new controller asks anew. Times are of one monotonic clock."""

    nonce: str = ""  # issued by this process and not used up
    issued_at: float = NEVER  # before the write began
    answered_at: float | None = None  # when its answer was first seen
    wiped_at: float = NEVER  # the last deletion that was not ours
    wipes: int = 0  # one after the other
    pause: float = 0.0  # after wiped_at, before a challenge may be written


class Step(Enum):
    CREATE = auto()  # the plugin has answered
    ISSUE = auto()  # write a new challenge now
    WAIT = auto()  # for the plugin's answer, or for the time given


@dataclass(frozen=True, slots=True)
class Decision:
    step: Step
    seconds: float | None = None  # look again after this time, even if nothing happens


def saw_wipe(state: ChallengeState, now: float, chance: float, timings: ChallengeTimings) -> ChallengeState:
    """The state after a deletion that was not ours. ``chance`` is random in [0, 1)."""
    since = now - state.wiped_at
    if since <= timings.settle:  # still the same wipe
        return replace(state, wiped_at=now)
    wipes = state.wipes + 1 if since - state.pause < _ROW_SECONDS else 1
    pause = timings.settle + chance * timings.jitter * 2.0 ** min(wipes - 1, 16)
    return replace(state, wiped_at=now, wipes=wipes, pause=min(pause, _MAX_PAUSE_SECONDS))


def issued(state: ChallengeState, nonce: str, now: float) -> ChallengeState:
    """The state after a challenge was written; ``now`` is from before the write."""
    return replace(state, nonce=nonce, issued_at=now, answered_at=None)


def saw_answer(state: ChallengeState, answer: str, now: float) -> ChallengeState:
    """The state after a look at the NodeInventory: the first that shows the answer begins the time it is good for."""
    if not state.nonce or answer != state.nonce or state.answered_at is not None:
        return state
    return replace(state, answered_at=now)


def used_up(state: ChallengeState) -> ChallengeState:
    """The state once nothing is missing: the next creation needs a new proof."""
    return replace(state, nonce="", answered_at=None)


def is_outstanding(state: ChallengeState) -> bool:
    """Whether a challenge was issued that is still of use."""
    return bool(state.nonce) and state.wiped_at < state.issued_at


def decide(state: ChallengeState, *, challenge: str, answer: str, now: float) -> Decision:
    """What to do when slices are missing. ``challenge`` and ``answer`` are those in the NodeInventory as last seen;
    the answer was told to :func:`saw_answer`."""
    if not is_outstanding(state):
        remaining = state.wiped_at + state.pause - now
        return Decision(Step.WAIT, remaining) if remaining > 0 else Decision(Step.ISSUE)
    if answer == state.nonce:
        fresh = state.answered_at is None or now - state.answered_at <= PROOF_SECONDS
        return Decision(Step.CREATE if fresh else Step.ISSUE)
    if challenge == state.nonce:
        return Decision(Step.WAIT)
    remaining = state.issued_at + LOST_SECONDS - now
    return Decision(Step.WAIT, remaining) if remaining > 0 else Decision(Step.ISSUE)
