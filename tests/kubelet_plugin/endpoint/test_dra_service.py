"""Translation between gRPC and the prepare engine: every UID answered, deadlines, bugs, both versions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import pytest

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet import dra_v1beta1_pb2 as v1beta1
from dra_driver.errors import ClaimNotFound, ConfigError, StateError
from dra_driver.observability.logs import OperationFilter
from kubelet_plugin.claims.model import ClaimRef, Failures, Operation, PrepareOutcome, UnprepareOutcome
from kubelet_plugin.endpoint.dra_service import DraService
from tests.kubelet_plugin.fakes import CDI_KIND, NODE, RecordingObserver, ScriptedPreparer


class Context:
    """A call with so much time left."""

    def __init__(self, remaining: float | None = 45.0) -> None:
        self._remaining = remaining

    def time_remaining(self) -> float | None:
        return self._remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False  # as when the caller has gone: told at once


def request(*uids: str) -> v1.NodePrepareResourcesRequest:
    return v1.NodePrepareResourcesRequest(
        claims=[v1.Claim(namespace="ns", name=f"name-{uid}", uid=uid) for uid in uids]
    )


def unprepare_request(*uids: str) -> v1.NodeUnprepareResourcesRequest:
    return v1.NodeUnprepareResourcesRequest(
        claims=[v1.Claim(namespace="ns", name=f"name-{uid}", uid=uid) for uid in uids]
    )


def test_devices_come_back_with_all_their_fields() -> None:
    answer = DraService(ScriptedPreparer()).prepare_v1(request("a", "b"), Context())
    assert set(answer.claims) == {"a", "b"}
    (device,) = answer.claims["a"].devices
    assert device == v1.Device(
        request_names=["gpu"],
        pool_name=NODE,
        device_name="gpu-0",
        cdi_device_ids=[f"{CDI_KIND}=a-gpu-0"],
        share_id="0f6b0e4d-0000-4000-8000-000000000000",
    )


def test_the_older_version_has_no_share_id() -> None:
    service = DraService(ScriptedPreparer())
    old = v1beta1.NodePrepareResourcesRequest(claims=[v1beta1.Claim(namespace="ns", name="n", uid="a")])
    (device,) = service.prepare_v1beta1(old, Context()).claims["a"].devices
    assert device == v1beta1.Device(
        request_names=["gpu"], pool_name=NODE, device_name="gpu-0", cdi_device_ids=[f"{CDI_KIND}=a-gpu-0"]
    )
    gone = v1beta1.NodeUnprepareResourcesRequest(claims=[v1beta1.Claim(namespace="ns", name="n", uid="a")])
    assert service.unprepare_v1beta1(gone, Context()).claims["a"].error == ""


def test_an_error_concerns_its_claim_only_and_says_what_to_do() -> None:
    preparer, observer = ScriptedPreparer(), RecordingObserver()
    preparer.errors["name-a"] = ConfigError("spec.sharing: unknown field", hint="remove it")
    service = DraService(preparer, [observer])

    answer = service.prepare_v1(request("a", "b"), Context())

    assert "InvalidConfig" in answer.claims["a"].error
    assert "spec.sharing: unknown field (remove it)" in answer.claims["a"].error
    assert not answer.claims["a"].devices
    assert answer.claims["b"].error == ""
    assert [(operation, claim.uid) for operation, claim, _ in observer.failures] == [("prepare", "a")]
    assert "spec.sharing" in service.unprepare_v1(unprepare_request("a"), Context()).claims["a"].error


def test_an_observer_that_raises_costs_neither_the_call_nor_the_other_observers() -> None:
    class Broken:
        def started(self, operation: Operation) -> None:
            raise KeyError("surprise")

        def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
            raise KeyError("surprise")

    preparer, observer = ScriptedPreparer(), RecordingObserver()
    preparer.errors["name-a"] = ConfigError("spec.sharing: unknown field", hint="remove it")
    answer = DraService(preparer, [Broken(), observer]).prepare_v1(request("a", "b"), Context())
    assert answer.claims["b"].error == ""
    assert observer.calls == ["prepare"]
    assert [claim.uid for _, claim, _ in observer.failures] == ["a"]


class SilentPreparer(ScriptedPreparer):
    """Answers for other claims than it was asked about."""

    def prepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, PrepareOutcome]:
        return {"somebody-else": ()}

    def unprepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, UnprepareOutcome]:
        return {}


def test_every_asked_uid_is_answered_and_no_other() -> None:
    service = DraService(SilentPreparer())
    prepared = service.prepare_v1(request("a"), Context())
    assert set(prepared.claims) == {"a"}
    assert "no answer for claim ns/name-a:a yet" in prepared.claims["a"].error
    unprepared = service.unprepare_v1(unprepare_request("a"), Context())
    assert "no answer" in unprepared.claims["a"].error


class BrokenPreparer(ScriptedPreparer):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def prepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, PrepareOutcome]:
        raise self._error


def test_a_bug_becomes_an_error_of_each_claim_and_a_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    answer = DraService(BrokenPreparer(KeyError("x"))).prepare_v1(request("a", "b"), Context())
    assert {"InternalError" in entry.error for entry in answer.claims.values()} == {True}
    assert "x" not in answer.claims["a"].error.split()
    assert any(record.exc_info for record in caplog.records)


def test_an_error_of_the_whole_call_is_every_claims_error() -> None:
    answer = DraService(BrokenPreparer(StateError("disk full"))).prepare_v1(request("a", "b"), Context())
    assert all("disk full" in entry.error for entry in answer.claims.values())


@pytest.mark.parametrize(
    ("remaining", "least", "most"),
    [(45.0, 44.0, 44.0), (None, 44.0, 44.0), (1e9, 44.0, 44.0), (2.0, 1.6, 1.6), (0.0, 0.0, 0.0)],
)
def test_the_engine_gets_the_deadline_less_a_margin(remaining: float | None, least: float, most: float) -> None:
    preparer = ScriptedPreparer()
    DraService(preparer).prepare_v1(request("a"), Context(remaining))
    assert least <= preparer.timeouts[0] <= most


def test_a_claim_named_twice_is_worked_on_once_and_no_claim_is_no_work() -> None:
    preparer = ScriptedPreparer()
    service = DraService(preparer)
    assert set(service.prepare_v1(request("a", "a"), Context()).claims) == {"a"}
    assert len(preparer.prepare_calls[0]) == 1
    assert not service.prepare_v1(request(), Context()).claims
    assert len(preparer.prepare_calls) == 1


def test_each_call_logs_a_beginning_and_an_end_with_one_operation_id(caplog: pytest.LogCaptureFixture) -> None:
    preparer = ScriptedPreparer()
    preparer.errors["name-b"] = ClaimNotFound("no claim ns/name-b")
    caplog.handler.addFilter(OperationFilter())
    with caplog.at_level(logging.DEBUG, "kubelet_plugin.endpoint.dra_service"):
        service = DraService(preparer)
        service.prepare_v1(request("a", "b"), Context())
        service.unprepare_v1(unprepare_request("a"), Context())
    calls: dict[str, list[str]] = {}
    for record in caplog.records:
        calls.setdefault(vars(record)["operation"], []).append(record.getMessage())
    first, second = calls.values()
    assert [first[0], first[-1]] == ["prepare begins", "prepare ends"]
    assert "prepare answered with an error: no claim ns/name-b" in first[1]
    assert second == ["unprepare begins", "unprepare ends"]
    assert "" not in calls
