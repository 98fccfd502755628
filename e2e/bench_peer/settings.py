"""What both drivers are told to do: one setting for each group of cases. Pure.

Gates that a setting does not name are at each driver's own default, but DynamicMIG: it is on by default here and off
there, and without it both publish whole GPUs only.
"""

from __future__ import annotations

from dataclasses import dataclass

_LIMITS_RAISED = ("--kube-api-qps=1000", "--kube-api-burst=1000")
_WHOLE = ("DynamicMIG=false",)


@dataclass(frozen=True, slots=True)
class Setting:
    """``gates`` and ``options`` go to both drivers, ``peer_options`` to the peer alone: we have no throttle to raise.

    ``devices`` is said of what is published. ``peer_problem`` says why the peer cannot be run this way here.
    """

    name: str
    devices: str = "whole GPUs"
    gates: tuple[str, ...] = _WHOLE
    options: tuple[str, ...] = ()
    peer_options: tuple[str, ...] = ()
    peer_problem: str = ""


WHOLE = Setting("default limits")
UNTHROTTLED = Setting("limits raised", peer_options=_LIMITS_RAISED)
MIG = Setting("dynamic MIG", "dynamic MIG", gates=("DynamicMIG=true",))
SLICED = Setting("time slices", gates=(*_WHOLE, "TimeSlicingSettings=true"), peer_options=_LIMITS_RAISED)
SHARED = Setting(
    "shares",
    "shares",
    gates=(*_WHOLE, "ConsumableShares=true"),
    options=("--consumable-shares=memory",),
    peer_options=_LIMITS_RAISED,
)
MPS = Setting(
    "MPS",
    gates=(*_WHOLE, "MPSSupport=true"),
    peer_problem="it makes a Deployment of a template file and a container image that are no part of its program",
)
