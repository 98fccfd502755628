"""ApiServer: the embedded API over HTTP on loopback, so that real processes and kubectl can use it.

Keep-alive, chunked watches, each with a thread. No TLS and no authentication: it listens on 127.0.0.1 and holds
simulated clusters. Routing is ``rest``, discovery ``discovery``.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from dra_driver.files import write_atomically
from dra_driver.http.connection import HttpLimits
from dra_driver.http.messages import PLAIN_TEXT, HttpAnswer, HttpRequest, HttpStream
from dra_driver.http.server import HttpServer
from dra_driver.kube.interface import ApiError, EventType
from dra_driver.kube.statuses import status_from_error
from dra_driver.simulation.apiserver.rest import Answer, Request, Rest, error_answer
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.simulation.store.watching import Watch

_JSON = "application/json"
# Of the largest demo, 50 nodes: a watch and one more connection of each plugin, about ten of everybody else.
LIMITS = HttpLimits(
    threads=16,
    connections=768,
    request_seconds=60.0,  # as the real server's --request-timeout
    body_bytes=3 << 20,  # as the real server's limit for a request
    streams=512,
)


class ApiServer:
    """``start`` binds and serves; ``stop`` ends. An instance is started at most once."""

    def __init__(
        self, api: EmbeddedApi, host: str = "127.0.0.1", port: int = 0, *, limits: HttpLimits = LIMITS
    ) -> None:
        """``port`` 0 takes a free one."""
        self._rest = Rest(api)
        self._address = host, port
        self._limits = limits
        self._bound: tuple[str, int] | None = None
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:41234``; raises RuntimeError before ``start``."""
        if self._bound is None:
            raise RuntimeError("the API server has no address before it is started")
        return f"http://{self._bound[0]}:{self._bound[1]}"

    def start(self) -> None:
        """Raises OSError when the address is taken."""
        listening = socket.create_server(self._address, backlog=128)
        host, port = listening.getsockname()[:2]
        self._bound = str(host), int(port)
        self._server = HttpServer("apiserver", listening, self._serve, self._limits, _refuse)
        self._server.start()

    def stop(self) -> None:
        """1. Accept no more connections. 2. End watches, which end cleanly for their clients. 3. Cut connections."""
        if self._server is not None:
            self._server.stop()

    def write_kubeconfig(self, path: Path) -> None:
        """A kubeconfig for this server, with context ``embedded``. JSON, which is YAML."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "embedded",
            "clusters": [{"name": "embedded", "cluster": {"server": self.url}}],
            "users": [{"name": "embedded", "user": {}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "embedded"}}],
        }
        write_atomically(path, json.dumps(config, indent=2).encode() + b"\n", mode=0o600)

    def _serve(self, request: HttpRequest) -> HttpAnswer | HttpStream:
        parts = urlsplit(request.target)
        answer = self._rest.handle(
            Request(
                request.method,
                parts.path,
                dict(parse_qsl(parts.query, keep_blank_values=True)),
                request.body,
                request.headers.get("Content-Type") or _JSON,
            )
        )
        if isinstance(answer, Answer):
            return _encoded(answer)
        answer.__enter__()  # ``HttpStream.close`` leaves it
        return HttpStream(_lines(answer), answer.close, _JSON)


def _encoded(answer: Answer) -> HttpAnswer:
    if isinstance(answer.content, str):
        return HttpAnswer(answer.code, answer.content.encode(), PLAIN_TEXT)
    return HttpAnswer(answer.code, json.dumps(answer.content, separators=(",", ":")).encode(), _JSON)


def _refuse(status: int, why: str) -> HttpAnswer:
    return _encoded(error_answer(ApiError(why, code=status)))


def _lines(watch: Watch) -> Iterator[bytes]:
    try:
        for event in watch:
            yield _line(event.type, event.object)
    except ApiError as error:
        yield _line("ERROR", status_from_error(error))


def _line(kind: EventType | str, obj: object) -> bytes:
    return json.dumps({"type": str(kind), "object": obj}, separators=(",", ":")).encode() + b"\n"
