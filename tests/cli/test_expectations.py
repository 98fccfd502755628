"""What a pod is expected to become, and when it has."""

from __future__ import annotations

import pytest

from dra_driver.allocator.pools import pools_from_slices
from dra_driver.cli.expectations import (
    EXPECT,
    EXPECT_REASON,
    FAILED_PREPARE,
    NEEDS_DEVICE,
    NEEDS_MATCH,
    Expectation,
    ExpectationError,
    State,
    expectation_of,
    failed_prepares,
    waiting_message,
)
from dra_driver.kube.interface import Obj
from tests.allocator.builders import gpu, resource_slice

CLOSE = pools_from_slices([resource_slice("n", [gpu(0), gpu(1)])])
MIG = {"type": {"string": "mig"}}
APART = pools_from_slices([resource_slice("n", [gpu(0), gpu(2)])])


def pod(phase: str = "", message: str = "", restart: str = "Always", **annotations: str) -> Obj:
    conditions = [{"type": "PodScheduled", "status": "False", "message": message}] if message else []
    return {
        "metadata": {"name": "p", "namespace": "n", "annotations": annotations},
        "spec": {"restartPolicy": restart, "containers": []},
        "status": {"phase": phase, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (pod(), Expectation(State.RUNNING)),
        (pod(restart="Never"), Expectation(State.SUCCEEDED)),
        (pod(restart="Never", **{EXPECT: "Running"}), Expectation(State.RUNNING)),
        (pod(**{EXPECT: "Pending", EXPECT_REASON: "fail"}), Expectation(State.PENDING, "fail")),
        (pod(**{NEEDS_MATCH: "2 resource.kubernetes.io/pcieRoot"}), Expectation(State.RUNNING)),
        (pod(**{NEEDS_MATCH: "3 resource.kubernetes.io/pcieRoot"}), Expectation(State.PENDING)),
    ],
)
def test_expectations(manifest: Obj, expected: Expectation) -> None:
    assert expectation_of(manifest, CLOSE) == expected


def test_a_match_that_no_node_has_makes_the_pod_wait() -> None:
    manifest = pod(**{NEEDS_MATCH: "2 resource.kubernetes.io/pcieRoot"})
    assert expectation_of(manifest, APART).state is State.PENDING
    part = gpu(1)
    parts = [part | {"name": f"part-{start}", "attributes": part["attributes"] | MIG} for start in range(2)]
    assert expectation_of(manifest, pools_from_slices([resource_slice("n", parts)])).state is State.PENDING


def test_a_device_that_no_node_has_makes_the_pod_wait() -> None:
    assert expectation_of(pod(**{NEEDS_DEVICE: "gpu.nvidia.com/type gpu"}), CLOSE).state is State.RUNNING
    assert expectation_of(pod(**{NEEDS_DEVICE: "gpu.nvidia.com/profile 9g.1gb"}), CLOSE).state is State.PENDING


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (EXPECT, "Ready", "it can be Running, Succeeded, Pending, Refused"),
        (NEEDS_MATCH, "pcieRoot", "write it as '2 resource"),
        (NEEDS_DEVICE, "1g.10gb", "write it as 'gpu.nvidia.com/profile"),
    ],
)
def test_wrong_annotations(name: str, value: str, message: str) -> None:
    with pytest.raises(ExpectationError, match=message):
        expectation_of(pod(**{name: value}), CLOSE)


@pytest.mark.parametrize(
    ("expectation", "now", "met", "missed"),
    [
        (Expectation(State.RUNNING), pod("Running"), True, False),
        (Expectation(State.RUNNING), pod("Pending"), False, False),
        (Expectation(State.RUNNING), pod("Failed"), False, True),
        (Expectation(State.RUNNING), pod("Succeeded"), False, True),
        (Expectation(State.SUCCEEDED), pod("Succeeded"), True, False),
        (Expectation(State.SUCCEEDED), pod("Running"), False, False),
        (Expectation(State.PENDING, "fail"), pod("Pending", "16 fail selector"), True, False),
        (Expectation(State.PENDING, "fail"), pod("Pending", "in use"), False, False),
        (Expectation(State.PENDING), pod("Pending"), False, False),
        (Expectation(State.PENDING), pod("Running"), False, True),
    ],
)
def test_met_and_missed(expectation: Expectation, now: Obj, met: bool, missed: bool) -> None:
    assert expectation.is_met(now) is met
    assert expectation.is_missed(now) is missed


@pytest.mark.parametrize(
    ("now", "failure", "met", "missed"),
    [
        (pod("Pending"), "", False, False),
        (pod("Pending"), "claim a/b: GPU is used otherwise", True, False),
        (pod("Pending"), "no such node", False, False),
        (pod("Running"), "claim a/b: GPU is used otherwise", False, True),
    ],
)
def test_a_pod_whose_claim_the_driver_refuses(now: Obj, failure: str, met: bool, missed: bool) -> None:
    expectation = Expectation(State.REFUSED, "used otherwise")
    assert expectation.is_met(now, failure) is met
    assert expectation.is_missed(now) is missed


def test_the_last_word_about_a_failed_prepare_counts() -> None:
    def event(reason: str, message: str, last: str, uid: str = "1") -> Obj:
        return {"reason": reason, "message": message, "lastTimestamp": last, "involvedObject": {"uid": uid}}

    events = [
        event(FAILED_PREPARE, "second", "2026-01-01T00:00:02Z"),
        event(FAILED_PREPARE, "first", "2026-01-01T00:00:01Z"),
        event(FAILED_PREPARE, "another pod", "2026-01-01T00:00:03Z", uid="2"),
        event("FailedScheduling", "no node", "2026-01-01T00:00:04Z"),
    ]
    assert failed_prepares(events) == {"1": "second", "2": "another pod"}


def test_why_a_pod_waits() -> None:
    assert waiting_message(pod("Pending", "no room")) == "no room"
    waiting = pod("Pending")
    waiting["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "X", "message": "no such device"}}}]
    assert waiting_message(waiting) == "no such device"
    assert waiting_message(pod("Running")) == ""
