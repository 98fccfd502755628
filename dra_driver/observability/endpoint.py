"""The HTTP endpoint of a daemon: ``/metrics``, ``/healthz`` (alive: else restart me) and ``/readyz`` (may get work).

A check is a function that returns what is wrong, or None. Liveness should only name what a restart mends.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

logger = logging.getLogger(__name__)

Check = Callable[[], str | None]

_REQUEST_TIMEOUT_SECONDS = 5


class HttpEndpoint:
    """Serves on ``address``: ``host:port``, ``:port`` for all interfaces; port 0 means any free one."""

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        checks: Mapping[str, Check] | None = None,
        *,
        liveness: Mapping[str, Check] | None = None,
        metrics_path: str = "/metrics",
    ) -> None:
        """``checks`` are those of /readyz, ``liveness`` those of /healthz; an empty ``metrics_path`` serves no metrics.

        Raises ValueError for a malformed address.
        """
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"address {address!r} is not host:port or :port")
        self._host = host.strip("[]")
        self._port = int(port)
        self._registry = registry
        self._ready = dict(checks or {})
        self._live = dict(liveness or {})
        self._metrics_path = metrics_path
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on; the free one that was found when port 0 was asked for."""
        return int(self._server.server_address[1]) if self._server else self._port

    def start(self) -> None:
        """Listen and serve. Raises OSError naming the address when it is taken."""
        if self._server is not None:
            return
        self._server = _Server(self._listen(), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http-endpoint", daemon=True
        )
        self._thread.start()
        logger.info("serving metrics and health on port %d", self.port)

    def stop(self) -> None:
        """Stop accepting, then close the socket. Requests in progress end within their own timeout."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None
        self._thread = None

    def _listen(self) -> socket.socket:
        try:
            if self._host:
                family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
                return socket.create_server((self._host, self._port), family=family)
            if socket.has_dualstack_ipv6():
                try:
                    return socket.create_server(("::", self._port), family=socket.AF_INET6, dualstack_ipv6=True)
                except OSError:
                    # IPv6 compiled in but switched off on this host: IPv4 below.
                    logger.debug("no IPv6 here, listening on IPv4 only")
            return socket.create_server(("0.0.0.0", self._port))
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot listen on {self._host or '*'}:{self._port} for metrics and health: {error.strerror}",
            ) from error

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry, ready, live, metrics_path = self._registry, self._ready, self._live, self._metrics_path

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_TIMEOUT_SECONDS

            def do_GET(self) -> None:
                match self.path.partition("?")[0]:
                    case path if path == metrics_path:
                        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                        self._answer(HTTPStatus.OK, encode(registry), content_type)
                    case "/healthz":
                        self._answer_checks(live)
                    case "/readyz":
                        self._answer_checks(ready)
                    case _:
                        self._answer(HTTPStatus.NOT_FOUND, b"only metrics, /healthz and /readyz are here\n")

            def _answer_checks(self, checks: Mapping[str, Check]) -> None:
                problems = run_checks(checks)
                if problems:
                    text = "".join(f"{name}: {problem}\n" for name, problem in problems.items())
                    self._answer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())
                else:
                    self._answer(HTTPStatus.OK, b"ok\n")

            def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                logger.debug(format, *args)

        return Handler


def run_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """The names of the checks that found something, and what. A check that raises counts as one that found that."""
    problems: dict[str, str] = {}
    for name, check in checks.items():
        try:
            problem = check()
        except Exception as error:  # noqa: BLE001 - a broken check must answer 503, not drop the connection
            problem = f"check failed: {error!r}"
        if problem:
            problems[name] = problem
    return problems


class _Server(ThreadingHTTPServer):
    """An HTTP server on a socket that already listens (so that IPv4, IPv6 and both look the same)."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listening.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()[:2]

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("a request to the metrics endpoint broke off: %r", sys.exception())
