"""Events about failed claims reach the pods they are reserved for, and damage to the checkpoint reaches the node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dra_driver.errors import DeviceInUse, PrepareTimeout
from dra_driver.kube.interface import EVENTS, RESOURCE_CLAIMS, Obj, Unavailable
from dra_driver.observability.events import EventRecorder, ObjectRef
from kubelet_plugin.claims.model import ClaimRef, Operation
from kubelet_plugin.prepare.checkpoint import CheckpointDamage, DamageKind
from kubelet_plugin.telling.engine_listener import EngineListener
from kubelet_plugin.telling.failure_events import FailureEvents
from tests.kubelet_plugin.fakes import Cluster, eventually

ERROR = DeviceInUse("gpu-0 is held by claim default/other", hint="delete its pod")


class Lab:
    def __init__(self, root: Path) -> None:
        self.cluster = Cluster(root)
        self.recorder = EventRecorder(self.cluster.api, "gpu-dra-kubelet-plugin", "node-0")
        self.events = FailureEvents(self.cluster.api, self.recorder)
        self.recorder.start()
        self.events.start()

    def stop(self) -> None:
        self.events.stop()
        self.recorder.stop()

    def recorded(self) -> list[Obj]:
        return self.cluster.api.list(EVENTS).items


@pytest.fixture
def lab(root: Path) -> Iterator[Lab]:
    lab = Lab(root)
    yield lab
    lab.stop()


def ref(claim: Obj) -> ClaimRef:
    return ClaimRef("default", claim["metadata"]["name"], claim["metadata"]["uid"])


def test_the_pods_of_the_claim_are_told(lab: Lab) -> None:
    claim = lab.cluster.claim("c")
    lab.cluster.pod("one", "c")
    lab.cluster.pod("two", "c")
    lab.events.started(Operation.PREPARE)
    lab.events.finished(Operation.PREPARE, 0.1, [(ref(claim), ERROR)])
    events = eventually(lambda: len(lab.recorded()) == 2 and lab.recorded())
    assert {event["involvedObject"]["name"] for event in events} == {"one", "two"}
    assert {(event["type"], event["reason"]) for event in events} == {("Warning", "DeviceInUse")}
    assert "gpu-0 is held by claim default/other (delete its pod)" in events[0]["message"]


def test_a_claim_without_pods_is_told_itself(lab: Lab) -> None:
    claim = lab.cluster.claim("c")
    lab.events.finished(Operation.UNPREPARE, 0.1, [(ref(claim), ERROR)])
    (event,) = eventually(lab.recorded)
    assert event["involvedObject"]["kind"] == "ResourceClaim"
    assert event["involvedObject"]["uid"] == claim["metadata"]["uid"]


def test_a_replaced_claims_pods_are_not_blamed(lab: Lab) -> None:
    lab.cluster.claim("c")
    lab.cluster.pod("innocent", "c")
    lab.events.finished(Operation.UNPREPARE, 0.1, [(ClaimRef("default", "c", "of-the-claim-before"), ERROR)])
    (event,) = eventually(lab.recorded)
    assert event["involvedObject"]["uid"] == "of-the-claim-before"


def test_a_claim_that_is_gone_has_no_event_and_api_trouble_does_not_stop_the_next(lab: Lab) -> None:
    claim = lab.cluster.claim("c")
    lab.events.finished(Operation.UNPREPARE, 0.1, [(ClaimRef("default", "gone", "u"), ERROR)])
    read, troubles = lab.cluster.api.get, [Unavailable("down")]

    def flaky(*args: object) -> Obj:
        if args[0] == RESOURCE_CLAIMS and args[1] == "c" and troubles:
            raise troubles.pop()
        return read(*args)  # type: ignore[arg-type]

    lab.cluster.api.get = flaky  # type: ignore[method-assign, assignment]
    lab.events.finished(Operation.PREPARE, 0.1, [(ref(claim), ERROR)])
    lab.events.finished(Operation.PREPARE, 0.1, [(ref(claim), PrepareTimeout("still running"))])
    events = eventually(lambda: len(lab.recorded()) == 2 and lab.recorded())
    assert {event["reason"] for event in events} == {"DeviceInUse", "PrepareStillRunning"}
    assert {event["involvedObject"]["name"] for event in events} == {"c"}


def test_damage_and_late_failures_are_told_and_counted(lab: Lab) -> None:
    registry = CollectorRegistry()
    node = ObjectRef("v1", "Node", "node-0")
    listener = EngineListener(registry, lab.recorder, lab.events, node)
    claim = lab.cluster.claim("c")
    damage = CheckpointDamage(
        DamageKind.CORRUPT, Path("/p/checkpoint.json"), Path("/p/checkpoint.json.corrupt-1"), ("cut short",), 0, ()
    )
    listener.checkpoint_damaged(damage)
    listener.failed_late(Operation.PREPARE, ref(claim), ERROR)
    listener.recovery_postponed([f"uid-{number}" for number in range(100)])
    events = eventually(lambda: len(lab.recorded()) == 3 and lab.recorded())
    by_reason = {event["reason"]: event for event in events}
    assert by_reason["CheckpointDamaged"]["involvedObject"]["kind"] == "Node"
    assert "checkpoint.json.corrupt-1" in by_reason["CheckpointDamaged"]["message"]
    assert by_reason["DeviceInUse"]["involvedObject"]["name"] == "c"
    assert "claims uid-0, uid-1, uid-2, uid-3 and 96 more " in by_reason["RecoveryPostponed"]["message"]
    assert registry.get_sample_value("gpu_dra_checkpoint_damaged_total", {"kind": "corrupt"}) == 1
    assert registry.get_sample_value("gpu_dra_late_failures_total", {"operation": "prepare"}) == 1
