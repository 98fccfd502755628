"""A watch on a real API server: one streaming answer, a JSON event per line.

Closing is possible from another thread at any time: it shuts the socket down for reading, which ends a blocked read.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import urllib3
from urllib3.exceptions import HTTPError

from dra_driver.kube.interface import EventType, Obj, Unavailable, WatchEvent
from dra_driver.kube.statuses import error_from_status

_READ_BYTES = 1 << 16


class ClusterWatch:
    """Context manager and iterator. The request is sent on entering."""

    def __init__(self, open_stream: Callable[[], urllib3.BaseHTTPResponse], description: str) -> None:
        self._open_stream = open_stream
        self._description = description
        self._lock = threading.Lock()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._lines: Iterator[bytes] = iter(())
        self._closed = False

    def __enter__(self) -> ClusterWatch:
        """Raises ApiError."""
        response = self._open_stream()
        with self._lock:
            self._response = response
        self._lines = self._read_lines(response)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            response, self._response = self._response, None
        if response is not None:
            response.close()  # not back to the pool: the rest of the stream was never read

    def close(self) -> None:
        """End the iteration, from any thread; the context still has to be left."""
        with self._lock:
            self._closed = True
            if isinstance(self._response, urllib3.HTTPResponse) and self._response.connection is not None:
                self._response.shutdown()

    def __iter__(self) -> ClusterWatch:
        return self

    def __next__(self) -> WatchEvent:
        """Raises Expired for a version that is too old, Unavailable when the stream broke or stayed silent."""
        if self._closed:
            raise StopIteration
        try:
            line = next(self._lines)
        except StopIteration:
            raise
        except (HTTPError, OSError, ValueError) as error:
            if self._closed:  # the shutdown itself, seen from the reading side
                raise StopIteration from None
            raise Unavailable(f"{self._description}: the stream broke: {error}", reason="NoAnswer") from error
        return self._event(line)

    def _event(self, line: bytes) -> WatchEvent:
        try:
            event = json.loads(line)
            kind, obj = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{self._description}: not a watch event: {line[:200]!r}") from error
        if kind == "ERROR":
            status: Obj = obj if isinstance(obj, dict) else {}
            raise error_from_status(int(status.get("code") or 500), status)
        return WatchEvent(EventType(kind), obj)

    @staticmethod
    def _read_lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        rest = b""
        for chunk in response.stream(_READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from filter(None, lines)
        if rest.strip():
            yield rest
