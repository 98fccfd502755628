"""The threads that do the work of an HTTP server: as many as are needed, up to a number."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from queue import SimpleQueue

from dra_driver.http.connection import Connection
from dra_driver.http.messages import HttpAnswer, HttpRequest, HttpStream, Refuse

logger = logging.getLogger(__name__)

Serve = Callable[[HttpRequest], HttpAnswer | HttpStream]
Done = Callable[[Connection, HttpAnswer | HttpStream], None]


class Workers:
    """``submit``, ``finished`` and ``stop`` are for the server's thread; ``serve`` and ``done`` are called on these."""

    def __init__(self, name: str, most: int, serve: Serve, refuse: Refuse, done: Done) -> None:
        self._name = name
        self._most = most
        self._serve = serve
        self._refuse = refuse
        self._done = done
        self._threads: list[threading.Thread] = []
        self._under_way = 0
        self._requests: SimpleQueue[tuple[Connection, HttpRequest] | None] = SimpleQueue()

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Raises RuntimeError when there is no thread and none can be started."""
        if self._under_way >= len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                logger.warning("%s: no thread can be started beside the %d there are", self._name, len(self._threads))
            else:
                self._threads.append(thread)
        self._under_way += 1
        self._requests.put((connection, request))

    def finished(self) -> None:
        """What came by ``done`` was taken note of."""
        self._under_way -= 1

    def stop(self) -> None:
        """Each thread ends after what it does now; nobody waits for one that hangs."""
        for _ in self._threads:
            self._requests.put(None)

    def _work(self) -> None:
        while (item := self._requests.get()) is not None:
            connection, request = item
            answer: HttpAnswer | HttpStream
            try:
                answer = self._serve(request)
            except Exception:
                # Thread boundary: the client gets an answer, the thread goes on.
                logger.exception("%s: %s %s broke", self._name, request.method, request.target)
                answer = self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the request broke; the log says how")
            self._done(connection, answer)
