"""What a look at a group means. Pure.

The trap that it is about: up to CUDA 13.5 a client that is killed with work in flight can leave a server in which every
other client hangs, and newcomers too, while the daemon answers as ever (peer drivers' issue trackers; a fix is
announced for driver branch r625). What a look can see of that, from the outside in:

- the daemon does not answer: it is dead, whatever else it does;
- a server does not answer through its daemon, or says FAULT (NVIDIA's MPS documentation, get_server_status): wedged;
- the canary program, a client like any other (``spec.mps.canaryProgram``), does not get through: wedged.

Of protocol 3 it sees more: that the one server is gone, in another state than Ready or without a device of the group,
which is wedged; and that a share is gone or has other limits than it should, which is put right.

Without that program a server that answers about itself, but lets no work through, is not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dra_driver.mps.group import GroupState

_FAULT = "FAULT"  # the others are INITIALIZING and ACTIVE


@dataclass(frozen=True, slots=True)
class Look:
    """``servers``: what each said of its status, None for one that did not answer. ``clients``: the process ids that
    the servers list; of a server that does not answer, those that were known and still run. ``canary``: why the program
    did not get through, "" when it did, None when it was not run."""

    answer: str | None  # why the daemon did not; None when it did
    servers: Mapping[int, str | None]
    clients: frozenset[int]
    canary: str | None = None
    trouble: str = ""  # of protocol 3: why its server is not as it should be
    shares: Mapping[str, str] = field(default_factory=dict)  # the same of shares, by name; only those with something


def judged(look: Look) -> tuple[GroupState, str]:
    """The state that follows, and why."""
    if look.answer is not None:
        return GroupState.DEAD, f"its daemon runs, but does not answer: {look.answer}"
    for pid, status in look.servers.items():
        if status is None:
            return GroupState.WEDGED, f"MPS server {pid} does not answer{_of_recycling(look)}"
        if status == _FAULT:
            return GroupState.WEDGED, f"MPS server {pid} is in status {_FAULT}{_of_recycling(look)}"
    if look.trouble:
        return GroupState.WEDGED, f"{look.trouble}{_of_recycling(look)}"
    for name, problem in look.shares.items():
        return GroupState.WEDGED, f"share {name} has not its limits: {problem}"
    if look.canary:
        return GroupState.WEDGED, f"no work gets through: {look.canary}{_of_recycling(look)}"
    return GroupState.READY, ""


def _of_recycling(look: Look) -> str:
    return f"; its daemon is started anew when no client is left ({len(look.clients)} now)" if look.clients else ""
