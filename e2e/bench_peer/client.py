"""The kubelet's calls of a driver, by us: from the request to the answer, over the driver's own socket."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from api.kubelet.dra_v1_pb2 import (
    Claim,
    NodePrepareResourceResponse,
    NodePrepareResourcesRequest,
    NodePrepareResourcesResponse,
    NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
)
from api.kubelet.services import DRA_V1, REGISTRATION
from e2e.bench_peer.node import BenchNode
from e2e.kit.waiting import NotYet, eventually

_CALL_SECONDS = 45.0  # the kubelet's own deadline
_PATIENCE = 30.0


class CallFailed(Exception):
    """A driver answered a call with an error; the message has its words."""


@dataclass(frozen=True, slots=True)
class Client:
    """Times are in milliseconds."""

    _prepare: grpc.UnaryUnaryMultiCallable[NodePrepareResourcesRequest, NodePrepareResourcesResponse]
    _unprepare: grpc.UnaryUnaryMultiCallable[NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse]

    def prepare(self, claims: Sequence[Claim]) -> float:
        request = NodePrepareResourcesRequest(claims=claims)
        began = time.perf_counter()
        reply = self._prepare(request, timeout=_CALL_SECONDS)
        took = (time.perf_counter() - began) * 1000
        for claim in claims:
            answer = reply.claims[claim.uid]
            if answer.error or not answer.devices:
                raise CallFailed(f"prepare of {claim.name}: {answer.error or 'no device in the answer'}")
        return took

    def answer(self, claim: Claim) -> NodePrepareResourceResponse:
        """Prepare it, or again, for what is answered."""
        reply = self._prepare(NodePrepareResourcesRequest(claims=[claim]), timeout=_CALL_SECONDS)
        return reply.claims[claim.uid]

    def unprepare(self, claims: Sequence[Claim]) -> float:
        request = NodeUnprepareResourcesRequest(claims=claims)
        began = time.perf_counter()
        reply = self._unprepare(request, timeout=_CALL_SECONDS)
        took = (time.perf_counter() - began) * 1000
        for claim in claims:
            if reply.claims[claim.uid].error:
                raise CallFailed(f"unprepare of {claim.name}: {reply.claims[claim.uid].error}")
        return took


@contextmanager
def connected(node: BenchNode) -> Iterator[Client]:
    """With the driver that is registered on ``node``."""
    with grpc.insecure_channel(f"unix:{eventually(lambda: _endpoint(node), _PATIENCE, poll=0.02)}") as channel:
        # Stubs once, as the kubelet has them: making one is no part of a call.
        yield Client(DRA_V1.prepare.stub(channel), DRA_V1.unprepare.stub(channel))


def _endpoint(node: BenchNode) -> Path:
    for socket in node.registration_sockets():
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            try:
                return node.outside(REGISTRATION.client(channel).get_info(timeout=5).endpoint)
            except grpc.RpcError as error:
                raise NotYet(f"{socket.name} does not answer: {error.code()}") from error
    raise NotYet("no driver has a registration socket")
