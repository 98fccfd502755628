"""The kubelet's calls of a driver, by us: from the request to the answer, over the driver's own socket."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc

from api.kubelet.dra_v1_pb2 import (
    Claim,
    NodePrepareResourceResponse,
    NodePrepareResourcesRequest,
    NodeUnprepareResourcesRequest,
)
from api.kubelet.services import DRA_V1

CALL_SECONDS = 45.0  # the kubelet's own deadline


class CallFailed(RuntimeError):
    """A driver answered a call with an error; the message has its words."""


class Calls:
    """Over one channel. Times are in milliseconds."""

    def __init__(self, channel: grpc.Channel) -> None:
        # Stubs once, as the kubelet has them: making one is no part of a call.
        self._prepare = DRA_V1.prepare.stub(channel)
        self._unprepare = DRA_V1.unprepare.stub(channel)

    def prepare(self, claims: Sequence[Claim]) -> float:
        request = NodePrepareResourcesRequest(claims=claims)
        began = time.perf_counter()
        reply = self._prepare(request, timeout=CALL_SECONDS)
        took = (time.perf_counter() - began) * 1000
        for claim in claims:
            answer = reply.claims[claim.uid]
            if answer.error or not answer.devices:
                raise CallFailed(f"prepare of {claim.name}: {answer.error or 'no device in the answer'}")
        return took

    def answer(self, claim: Claim) -> NodePrepareResourceResponse:
        """Prepare it, or again, for what is answered."""
        reply = self._prepare(NodePrepareResourcesRequest(claims=[claim]), timeout=CALL_SECONDS)
        return reply.claims[claim.uid]

    def unprepare(self, claims: Sequence[Claim]) -> float:
        request = NodeUnprepareResourcesRequest(claims=claims)
        began = time.perf_counter()
        reply = self._unprepare(request, timeout=CALL_SECONDS)
        took = (time.perf_counter() - began) * 1000
        for claim in claims:
            if reply.claims[claim.uid].error:
                raise CallFailed(f"unprepare of {claim.name}: {reply.claims[claim.uid].error}")
        return took
