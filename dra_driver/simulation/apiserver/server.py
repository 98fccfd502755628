"""ApiServer: the embedded API over HTTP on loopback, so that real processes and kubectl can use it.

One thread per connection, keep-alive, chunked watches. No TLS and no authentication: it listens on 127.0.0.1 and holds
simulated clusters. Routing is ``apiserver_rest``, discovery ``apiserver_discovery``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from dra_driver.files import write_atomically
from dra_driver.kube.interface import ApiError, EventType
from dra_driver.kube.statuses import status_from_error
from dra_driver.simulation.apiserver.hangups import Hangups
from dra_driver.simulation.apiserver.rest import Answer, Request, Rest, error_answer
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.simulation.store.watching import Watch

_log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.1
_BUFFER_BYTES = 1 << 16
_LARGEST_BODY = 3 << 20  # as the real server's limit for a request


class ApiServer:
    """``start`` binds and serves; ``stop`` ends. An instance is started at most once."""

    def __init__(self, api: EmbeddedApi, host: str = "127.0.0.1", port: int = 0) -> None:
        """``port`` 0 takes a free one."""
        self._api = api
        self._address = host, port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._hangups = Hangups()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:41234``; raises RuntimeError before ``start``."""
        if self._server is None:
            raise RuntimeError("the API server has no address before it is started")
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Raises OSError when the address is taken."""
        self._hangups.start()
        self._server = _Server(self._address, self._api, self._hangups)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="apiserver", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """1. Accept no more connections. 2. End watches, which end cleanly for their clients. 3. Cut connections."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join(_STOP_SECONDS)
        self._server.end_watches()
        self._server.server_close()
        self._hangups.stop()

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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], api: EmbeddedApi, hangups: Hangups) -> None:
        self.rest = Rest(api)
        self.hangups = hangups
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._watches: set[Watch] = set()
        self._count = 0
        super().__init__(address, _Handler)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        with self._lock:
            self._count += 1
            threading.current_thread().name = f"apiserver-connection-{self._count}"
        super().process_request_thread(request, client_address)

    @contextlib.contextmanager
    def connection(self, opened: socket.socket) -> Iterator[None]:
        """Knows a connection while it is served, so that stopping can cut it."""
        with self._lock:
            self._sockets.add(opened)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(opened)

    @contextlib.contextmanager
    def watching(self, watch: Watch, opened: socket.socket) -> Iterator[Watch]:
        """Ends the watch when its client hangs up or the server stops."""
        with self._lock:
            self._watches.add(watch)
        try:
            with self.hangups.watching(opened, watch.close):
                yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)

    def end_watches(self) -> None:
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.close()

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            sockets = list(self._sockets)
        for opened in sockets:
            with contextlib.suppress(OSError):  # the client may be gone already
                opened.shutdown(socket.SHUT_RD)  # wakes a handler that waits for the next request

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("connection of %s ended with an error", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = _BUFFER_BYTES
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with self.server.connection(self.connection), contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY:
            self.close_connection = True
            self._send(error_answer(ApiError("the body of the request is too large", code=413)))
            return
        request = Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            self.rfile.read(length) if length else b"",
            self.headers.get("Content-Type") or "application/json",
        )
        answer = self.server.rest.handle(request)
        if isinstance(answer, Answer):
            self._send(answer)
        else:
            self._stream(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names that http.server looks for

    def _send(self, answer: Answer) -> None:
        plain = isinstance(answer.content, str)
        data = (answer.content if plain else json.dumps(answer.content, separators=(",", ":"))).encode()
        self.send_response(answer.code)
        self.send_header("Content-Type", "text/plain" if plain else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _stream(self, watch: Watch) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        with watch, self.server.watching(watch, self.connection):
            try:
                for event in watch:
                    self._send_event(event.type, event.object)
            except ApiError as error:
                self._send_event("ERROR", status_from_error(error))
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send_event(self, kind: EventType | str, obj: object) -> None:
        line = json.dumps({"type": str(kind), "object": obj}, separators=(",", ":")).encode() + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        _log.debug(format, *args)
