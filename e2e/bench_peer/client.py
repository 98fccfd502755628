"""The way to the driver that is registered on the node, for calls like the kubelet's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from api.kubelet.services import REGISTRATION
from e2e.bench_peer.node import BenchNode
from e2e.kit.waiting import NotYet, eventually
from tests.bench.calls import Calls

_PATIENCE = 30.0


@contextmanager
def connected(node: BenchNode) -> Iterator[Calls]:
    """With the driver that is registered on ``node``."""
    with grpc.insecure_channel(f"unix:{eventually(lambda: _endpoint(node), _PATIENCE, poll=0.02)}") as channel:
        yield Calls(channel)


def _endpoint(node: BenchNode) -> Path:
    for socket in node.registration_sockets():
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            try:
                return node.outside(REGISTRATION.client(channel).get_info(timeout=5).endpoint)
            except grpc.RpcError as error:
                raise NotYet(f"{socket.name} does not answer: {error.code()}") from error
    raise NotYet("no driver has a registration socket")
