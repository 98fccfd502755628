"""The DRA service, v1 and v1beta1: from gRPC messages to the prepare engine and back.

Every asked UID is answered, since the kubelet fails the whole pod for a missing one. The engine gets the caller's
deadline less a margin for the way back, so that the answer "still running, try again" arrives instead of a dead call.
Whatever goes wrong inside becomes the error of the claims concerned; the call itself succeeds. The share id exists in
v1 only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import grpc

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet import dra_v1beta1_pb2 as v1beta1
from api.kubelet.services import DRA_V1, DRA_V1BETA1
from dra_driver.errors import DriverError, InternalError, PrepareTimeout
from dra_driver.observability.listeners import Listeners
from dra_driver.observability.logs import operation
from kubelet_plugin.claims.model import (
    ClaimPreparer,
    ClaimRef,
    Failures,
    Operation,
    PreparedDevice,
    PrepareOutcome,
    UnprepareOutcome,
)
from kubelet_plugin.endpoint.calls_under_way import CallsUnderWay
from kubelet_plugin.telling.failures import reply_text

logger = logging.getLogger(__name__)

SUPPORTED_VERSIONS = (DRA_V1.advertised, DRA_V1BETA1.advertised)  # the first one that the kubelet knows wins
_LONGEST_CALL_SECONDS = 45.0  # the kubelet's own deadline (cm/dra/plugin: defaultClientCallTimeout)
_MARGIN_SECONDS = 1.0
_MARGIN_SHARE = 0.2  # of short deadlines

Answer = TypeVar("Answer")


class CallObserver(Protocol):
    """Who counts calls and tells people about failed claims. Must not block. One that raises is logged."""

    def started(self, operation: Operation) -> None:
        """A call came in; exactly one ``finished`` follows."""
        ...

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        """It was answered; ``failures`` are the claims that got an error."""
        ...


class ClaimMessage(Protocol):
    """dra.Claim of either version."""

    namespace: str
    uid: str
    name: str


class CallContext(Protocol):
    """What is needed of a gRPC call's context."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None, or a very long time, when it does not."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called once the answer has gone; False when the call has ended already."""
        ...


class DraService:
    """Serves both versions over one engine. ``calls`` is told of each call; ``clock`` is monotonic seconds."""

    def __init__(
        self,
        preparer: ClaimPreparer,
        observers: Sequence[CallObserver] = (),
        *,
        calls: CallsUnderWay | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._preparer = preparer
        self._started: Listeners[[Operation]] = Listeners("a call began")
        self._finished: Listeners[[Operation, float, Failures]] = Listeners("a call ended")
        for observer in observers:
            self._started.add(observer.started)
            self._finished.add(observer.finished)
        self._calls = calls or CallsUnderWay()
        self._clock = clock

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        return (
            DRA_V1.handler(self.prepare_v1, self.unprepare_v1),
            DRA_V1BETA1.handler(self.prepare_v1beta1, self.unprepare_v1beta1),
        )

    def prepare_v1(
        self, request: v1.NodePrepareResourcesRequest, context: CallContext
    ) -> v1.NodePrepareResourcesResponse:
        response = v1.NodePrepareResourcesResponse()
        for claim, answer in self._prepare(request.claims, context).items():
            entry = response.claims[claim.uid]  # touching a map entry makes it
            if isinstance(answer, DriverError):
                entry.error = reply_text(Operation.PREPARE, claim, answer)
            else:
                entry.devices.extend(_device_v1(device) for device in answer)
        return response

    def prepare_v1beta1(
        self, request: v1beta1.NodePrepareResourcesRequest, context: CallContext
    ) -> v1beta1.NodePrepareResourcesResponse:
        response = v1beta1.NodePrepareResourcesResponse()
        for claim, answer in self._prepare(request.claims, context).items():
            entry = response.claims[claim.uid]
            if isinstance(answer, DriverError):
                entry.error = reply_text(Operation.PREPARE, claim, answer)
            else:
                entry.devices.extend(_device_v1beta1(device) for device in answer)
        return response

    def unprepare_v1(
        self, request: v1.NodeUnprepareResourcesRequest, context: CallContext
    ) -> v1.NodeUnprepareResourcesResponse:
        response = v1.NodeUnprepareResourcesResponse()
        for claim, answer in self._unprepare(request.claims, context).items():
            response.claims[claim.uid].error = reply_text(Operation.UNPREPARE, claim, answer) if answer else ""
        return response

    def unprepare_v1beta1(
        self, request: v1beta1.NodeUnprepareResourcesRequest, context: CallContext
    ) -> v1beta1.NodeUnprepareResourcesResponse:
        response = v1beta1.NodeUnprepareResourcesResponse()
        for claim, answer in self._unprepare(request.claims, context).items():
            response.claims[claim.uid].error = reply_text(Operation.UNPREPARE, claim, answer) if answer else ""
        return response

    def _prepare(self, claims: Iterable[ClaimMessage], context: CallContext) -> dict[ClaimRef, PrepareOutcome]:
        return self._run(Operation.PREPARE, _refs(claims), context, self._preparer.prepare)

    def _unprepare(self, claims: Iterable[ClaimMessage], context: CallContext) -> dict[ClaimRef, UnprepareOutcome]:
        return self._run(Operation.UNPREPARE, _refs(claims), context, self._preparer.unprepare)

    def _run(
        self,
        name: Operation,
        claims: Sequence[ClaimRef],
        context: CallContext,
        work: Callable[..., Mapping[str, Answer | DriverError]],
    ) -> dict[ClaimRef, Answer | DriverError]:
        """One call, between two log lines with one operation id. Answers exactly the asked claims.

        A call without claims is our own health check: it is answered and leaves no trace. What is counted and told at
        the end is so after the answer has gone: the pod need not wait for it.
        """
        if not claims:
            return {}
        time_for_work = _work_time(context.time_remaining())
        with operation() as identifier, self._calls.call(time_for_work):
            started = self._clock()
            self._started.tell(name)
            logger.debug("%s begins", name)
            answers = self._answers(name, claims, time_for_work, work)
            seconds = self._clock() - started

        def tell() -> None:
            with operation(identifier):
                self._tell(name, answers, seconds)

        if not context.add_callback(tell):  # the caller has gone
            tell()
        return answers

    def _tell(self, name: Operation, answers: Mapping[ClaimRef, Answer | DriverError], seconds: float) -> None:
        failures = [(claim, answer) for claim, answer in answers.items() if isinstance(answer, DriverError)]
        for claim, failure in failures:
            logger.info(
                "%s answered with an error: %s",
                name,
                failure,
                extra={"claim": str(claim), "reason": failure.reason},
            )
        self._finished.tell(name, seconds, failures)
        logger.info(
            "%s ends",
            name,
            extra={"claims": " ".join(map(str, answers)), "failed": len(failures), "ms": round(seconds * 1000, 1)},
        )

    def _answers(
        self,
        name: Operation,
        claims: Sequence[ClaimRef],
        timeout: float,
        work: Callable[..., Mapping[str, Answer | DriverError]],
    ) -> dict[ClaimRef, Answer | DriverError]:
        try:
            answers = work(claims, timeout=timeout)
            return {claim: answers[claim.uid] if claim.uid in answers else _missing(claim) for claim in claims}
        except DriverError as error:
            return dict.fromkeys(claims, error)
        except Exception as error:
            # The RPC boundary: a bug must cost these claims an error, not the caller its answer.
            logger.exception("%s broke", name)
            return dict.fromkeys(claims, InternalError.of(error))


def _refs(claims: Iterable[ClaimMessage]) -> tuple[ClaimRef, ...]:
    """In the order asked, each UID once."""
    return tuple({claim.uid: ClaimRef(claim.namespace, claim.name, claim.uid) for claim in claims}.values())


def _work_time(remaining: float | None) -> float:
    """Seconds the engine may take, of the caller's ``remaining`` ones. None means the kubelet's usual deadline."""
    deadline = min(remaining, _LONGEST_CALL_SECONDS) if remaining is not None else _LONGEST_CALL_SECONDS
    return max(deadline - min(_MARGIN_SECONDS, deadline * _MARGIN_SHARE), 0.0)


def _missing(claim: ClaimRef) -> DriverError:
    return PrepareTimeout(f"no answer for claim {claim} yet", hint="the kubelet tries again")


def _device_v1(device: PreparedDevice) -> v1.Device:
    return v1.Device(
        request_names=device.request_names,
        pool_name=device.pool_name,
        device_name=device.device_name,
        cdi_device_ids=device.cdi_device_ids,
        share_id=device.share_id,
    )


def _device_v1beta1(device: PreparedDevice) -> v1beta1.Device:
    return v1beta1.Device(
        request_names=device.request_names,
        pool_name=device.pool_name,
        device_name=device.device_name,
        cdi_device_ids=device.cdi_device_ids,
    )
