"""Threads of their own for calls that last: streams take none from the calls that a server is there for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

Serve = Callable[[Any, grpc.ServicerContext], Iterator[Any]]


class OwnThreads:
    """A handler that grpcio runs in ``experimental_thread_pool`` (grpc/_server.py), not in the server's threads."""

    def __init__(self, threads: futures.ThreadPoolExecutor, serve: Serve) -> None:
        self.experimental_thread_pool = threads
        self._serve = serve

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self._serve(request, context)
