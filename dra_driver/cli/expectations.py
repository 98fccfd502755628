"""What a pod's manifest expects of it, and whether it got there. Pure.

Annotations on the pod: ``gpu-dra.dev/expect`` (Running, Succeeded, Pending or Refused; Running without it, Succeeded
for pods that do not restart), ``gpu-dra.dev/expect-reason`` (for Pending part of the scheduler's reason, for Refused of
the driver's),
``gpu-dra.dev/needs-match: "<count> <attribute>"`` and ``gpu-dra.dev/needs-device: "<attribute> <text>"``: where no node
has so many whole GPUs with one value of the attribute, or no device with that text as its value, the pod is expected
to wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dra_driver.allocator.pools import Pool
from dra_driver.kube.interface import Obj

EXPECT = "gpu-dra.dev/expect"
EXPECT_REASON = "gpu-dra.dev/expect-reason"
NEEDS_MATCH = "gpu-dra.dev/needs-match"
NEEDS_DEVICE = "gpu-dra.dev/needs-device"
_TYPE = "gpu.nvidia.com/type"
FAILED_PREPARE = "FailedPrepareDynamicResources"  # the kubelet's Event (pkg/kubelet/events/event.go)


class State(StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    PENDING = "Pending"  # the scheduler finds nothing for it
    REFUSED = "Refused"  # it has a node, where the driver does not prepare its claim


class ExpectationError(Exception):
    """An annotation is wrong; the message names pod, annotation and what is allowed."""


@dataclass(frozen=True, slots=True)
class Expectation:
    state: State
    reason: str = ""  # part of the scheduler's message, or of the driver's

    def __str__(self) -> str:
        return self.state.value

    def is_met(self, pod: Obj, failure: str = "") -> bool:
        """``failure``: what the kubelet said last of a prepare that failed; empty for nothing."""
        if self.state in (State.PENDING, State.REFUSED):
            message = unschedulable_message(pod) if self.state is State.PENDING else failure
            return phase(pod) == "Pending" and bool(message) and self.reason in message
        return phase(pod) == self.state

    def is_missed(self, pod: Obj) -> bool:
        """Whether the pod ended somewhere from which it cannot get to the expected state."""
        now = phase(pod)
        if self.state is State.RUNNING:
            return now in ("Succeeded", "Failed")
        if self.state is State.SUCCEEDED:
            return now == "Failed"
        return now in ("Running", "Succeeded", "Failed")


def expectation_of(pod: Obj, pools: Sequence[Pool]) -> Expectation:
    """Raises :class:`ExpectationError`."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    ends = pod["spec"].get("restartPolicy", "Always") != "Always"
    wanted = annotations.get(EXPECT, State.SUCCEEDED if ends else State.RUNNING)
    if wanted not in tuple(State):
        allowed = ", ".join(State)
        raise ExpectationError(f"pod {metadata['name']}: {EXPECT} is {wanted!r}; it can be {allowed}")
    if NEEDS_MATCH in annotations and not _has_match(metadata["name"], annotations[NEEDS_MATCH], pools):
        return Expectation(State.PENDING)
    if NEEDS_DEVICE in annotations and not _has_device(metadata["name"], annotations[NEEDS_DEVICE], pools):
        return Expectation(State.PENDING)
    waits = wanted in (State.PENDING, State.REFUSED)
    return Expectation(State(wanted), annotations.get(EXPECT_REASON, "") if waits else "")


def phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def unschedulable_message(pod: Obj) -> str:
    """The scheduler's reason for not placing the pod; empty when it has none."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or "")
    return ""


def waiting_message(pod: Obj) -> str:
    """Why a pod is not (yet) running, from its condition or its containers."""
    message = unschedulable_message(pod)
    if message:
        return message
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            return str(waiting["message"])
    return ""


def failed_prepares(events: Iterable[Obj]) -> Mapping[str, str]:
    """What the kubelet said last of prepares that failed, by the pod's UID."""
    found = [event for event in events if event.get("reason") == FAILED_PREPARE]
    found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return {event["involvedObject"].get("uid", ""): str(event.get("message") or "") for event in found}


def _has_match(name: str, text: str, pools: Iterable[Pool]) -> bool:
    count, _, attribute = text.partition(" ")
    if not count.isdigit() or "/" not in attribute:
        raise ExpectationError(
            f"pod {name}: {NEEDS_MATCH} is {text!r}; write it as '2 resource.kubernetes.io/pcieRoot'"
        )
    for pool in pools:
        # Parts of one GPU have much in common, but the examples that match attributes want whole ones.
        values = Counter(device.attribute(attribute) for device in pool.devices if device.attribute(_TYPE) != "mig")
        values.pop(None, None)
        if any(found >= int(count) for found in values.values()):
            return True
    return False


def _has_device(name: str, text: str, pools: Iterable[Pool]) -> bool:
    attribute, _, value = text.partition(" ")
    if "/" not in attribute or not value:
        raise ExpectationError(f"pod {name}: {NEEDS_DEVICE} is {text!r}; write it as 'gpu.nvidia.com/profile 1g.10gb'")
    return any(device.attribute(attribute) == value for pool in pools for device in pool.devices)
