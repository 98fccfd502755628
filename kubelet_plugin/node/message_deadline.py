"""Calls whose message does not come are cut, since each of them holds one of the server's threads.

grpcio waits for the message of a call on the thread that is to serve it, for ever (grpc/_server.py, _unary_request); a
few callers that say nothing would keep the kubelet out. A handler for a stream of requests is called at once, and on
the wire one request is a stream of one; so here it waits itself, and a thread that watches cancels what is late.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(slots=True)
class _Wait:
    until: float
    context: grpc.ServicerContext | None  # None once the message is there: a call must not be kept till its deadline


class MessageDeadline:
    """Thread ``<name>-deadline`` between start and stop. ``seconds``: from the start of a call to its message.

    The thread looks at all calls once in that time, so one is cut after ``seconds`` to twice as long. To wake it for
    each call would cost every prepare more than all it does.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._waits: deque[_Wait] = deque()  # nearly in the order of their ends: all have the same time
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-deadline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def on(self, handler: grpc.GenericRpcHandler) -> grpc.GenericRpcHandler:
        """``handler`` under this deadline."""
        return _Limited(handler, self._message)

    def _message(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """The one message of a call. Raises what grpcio raises for a call that was cancelled."""
        wait = _Wait(time.monotonic() + self._seconds, context)
        self._waits.append(wait)
        try:
            message = next(requests, None)
        finally:
            wait.context = None
        if message is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its message came")
        return message

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            now = time.monotonic()
            while self._waits and self._waits[0].until <= now:
                late = self._waits.popleft().context
                if late is not None:
                    late.cancel()


class _Limited(grpc.GenericRpcHandler):
    def __init__(
        self, handler: grpc.GenericRpcHandler, message: Callable[[Iterator[Any], grpc.ServicerContext], Any]
    ) -> None:
        self._handler = handler
        self._message = message

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        found: Any = self._handler.service(handler_call_details)
        if found is None or found.request_streaming:
            return found  # type: ignore[no-any-return]
        forms = {"request_deserializer": found.request_deserializer, "response_serializer": found.response_serializer}
        if found.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(found.unary_stream), **forms)
        return grpc.stream_unary_rpc_method_handler(self._unary(found.unary_unary), **forms)

    def _unary(self, serve: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
        def behavior(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return serve(self._message(requests, context), context)

        return _in_threads_of(serve, behavior)

    def _stream(self, serve: Callable[[Any, grpc.ServicerContext], Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def behavior(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            yield from serve(self._message(requests, context), context)

        return _in_threads_of(serve, behavior)


def _in_threads_of(serve: object, behavior: Callable[..., Any]) -> Callable[..., Any]:
    """grpcio takes the threads of a handler from this attribute (``health.service``)."""
    threads = getattr(serve, "experimental_thread_pool", None)
    if threads is not None:
        behavior.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return behavior
