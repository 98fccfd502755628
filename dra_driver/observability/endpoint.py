"""The HTTP endpoint of a daemon: ``/metrics``, ``/healthz`` (alive: else restart me) and ``/readyz`` (may get work).

Liveness should only name what a restart mends. Neither clients nor checks that hang can take the endpoint's threads:
the first have none (``dra_driver.http``), the others have one of their own each (``checks``).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import cast

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from dra_driver.http.connection import HttpLimits
from dra_driver.http.messages import HttpAnswer, HttpRequest
from dra_driver.http.server import HttpServer
from dra_driver.observability.checks import Check, Checks, Guarded, Hangs

logger = logging.getLogger(__name__)

# A probe waits for 12 s (the chart), Prometheus by default for 10. Our longest check takes 3 s, on an idle machine.
LIMITS = HttpLimits(threads=4, connections=256, request_seconds=10.0)
_PATIENCE_SECONDS = 8.0


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
        limits: HttpLimits = LIMITS,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        """``checks`` are those of /readyz, ``liveness`` those of /healthz; an empty ``metrics_path`` serves no metrics.

        ``patience``: seconds after which a check hangs. Raises ValueError for a malformed address.
        """
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"address {address!r} is not host:port or :port")
        self._host = host.strip("[]")
        self._port = int(port)
        self._bound = 0
        self._metrics: Guarded[list[Metric]] = Guarded("metrics", lambda: list(registry.collect()), patience)
        self._ready = Checks(checks or {}, patience)
        self._live = Checks(liveness or {}, patience)
        self._metrics_path = metrics_path
        self._limits = limits
        self._server: HttpServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on; the free one that was found when port 0 was asked for."""
        return self._bound if self._server else self._port

    def start(self) -> None:
        """Listen and serve. Raises OSError naming the address when it is taken."""
        if self._server is not None:
            return
        listening = self._listen()
        self._bound = int(listening.getsockname()[1])
        self._server = HttpServer("http-endpoint", listening, self._serve, self._limits)
        self._server.start()
        logger.info("serving metrics and health on port %d", self.port)

    def stop(self) -> None:
        """Stop accepting, then close the socket. Requests in progress get a moment to end."""
        if self._server is not None:
            self._server.stop()
            self._server = None

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

    def _serve(self, request: HttpRequest) -> HttpAnswer:
        if request.method not in ("GET", "HEAD"):
            return HttpAnswer(HTTPStatus.NOT_IMPLEMENTED, b"this is read only: use GET\n")
        match request.target.partition("?")[0]:
            case path if path == self._metrics_path:
                return self._metrics_answer(request.headers.get("Accept", ""))
            case "/healthz":
                return _checks_answer(self._live)
            case "/readyz":
                return _checks_answer(self._ready)
            case _:
                return HttpAnswer(HTTPStatus.NOT_FOUND, b"only metrics, /healthz and /readyz are here\n")

    def _metrics_answer(self, accept: str) -> HttpAnswer:
        encode, content_type = choose_encoder(accept)
        try:
            families = self._metrics.answer(self._metrics.begin())
        except Hangs as hanging:
            return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, f"the collection of metrics {hanging}\n".encode())
        return HttpAnswer(HTTPStatus.OK, encode(cast(CollectorRegistry, _Collected(families or ()))), content_type)


def _checks_answer(checks: Checks) -> HttpAnswer:
    problems = checks.problems()
    if not problems:
        return HttpAnswer(HTTPStatus.OK, b"ok\n")
    text = "".join(f"{name}: {problem}\n" for name, problem in problems.items())
    return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())


class _Collected:
    """Metrics that were collected before, as an encoder reads them: it asks a registry for nothing else."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
