"""HTTP to one API server: connection pool, TLS, timeouts on everything, bounded retries, answers as JSON or errors.

Relies on urllib3 only: about 20 MiB less than the generated client, and no model that drops fields. Not rate limited:
the server has priority and fairness, and answers 429, which is honoured here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning, NewConnectionError, ProtocolError

from dra_driver.errors import ConfigError
from dra_driver.kube.credentials import Credentials
from dra_driver.kube.interface import ApiError, Obj, TooManyRequests, Unavailable
from dra_driver.kube.statuses import error_from_status
from dra_driver.version import __version__

_log = logging.getLogger(__name__)

_POOL_SIZE = 16
_CONNECT_SECONDS = 5.0
_CONNECTION_RETRIES = 2
_RETRY_PAUSE = 0.1
_LONGEST_RETRY_AFTER = 5.0
_UNAUTHORIZED = 401
_USER_AGENT = f"gpu-dra/{__version__}"
# A peer that vanished is noticed after 30 s + 3 x 10 s without an answer, also on an idle watch.
_SOCKET_OPTIONS: list[tuple[int, int, int | bytes]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
if hasattr(socket, "TCP_KEEPIDLE"):
    _SOCKET_OPTIONS += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an API server is and how its certificate is checked. PEM texts, not files; None is the system's default."""

    url: str
    ca: str | None = None
    verify: bool = True
    server_name: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    proxy: str | None = None


class Transport:
    """Thread-safe. ``close`` ends idle connections; requests in flight go on."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"the API server's address {endpoint.url!r} is not an http:// or https:// URL")
        self.url = endpoint.url
        self._prefix = parts.path.rstrip("/")
        self._credentials = credentials
        options: dict[str, Any] = {
            "maxsize": _POOL_SIZE,
            "retries": False,
            "socket_options": _SOCKET_OPTIONS,
            "headers": {"User-Agent": _USER_AGENT, "Accept": "application/json"},
        }
        if parts.scheme == "https":
            options["ssl_context"] = _tls(endpoint)
            if endpoint.server_name:
                options |= {"server_hostname": endpoint.server_name, "assert_hostname": endpoint.server_name}
        manager = urllib3.ProxyManager(endpoint.proxy, **options) if endpoint.proxy else urllib3.PoolManager(**options)
        self._manager = manager
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._headers: dict[str, str] = options["headers"]

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout: float,
    ) -> Obj:
        """The decoded answer. Raises ApiError.

        A GET is tried again, twice, when the connection failed (not when it timed out). A 429 is waited for as long as
        ``Retry-After`` says, as long as ``timeout`` seconds are not over. A 401 is tried once with fresh credentials.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        deadline = time.monotonic() + timeout
        renewed = False
        while True:
            response = self._send_retrying(method, path, query, data, content_type, timeout)
            if response.status < 300:
                return _decoded(response.data, f"{method} {path}")
            error = _error(response.status, response.data)
            if response.status == _UNAUTHORIZED and not renewed:
                renewed = True
                before = self._credentials.headers()
                self._credentials.forget()
                if self._credentials.headers() != before:
                    continue
            if isinstance(error, TooManyRequests):
                pause = _retry_after(response.headers.get("Retry-After"))
                if pause is not None and time.monotonic() + pause < deadline:
                    _log.debug("the API server is busy, waiting", extra={"path": path, "seconds": pause})
                    time.sleep(pause)
                    continue
            raise error

    def _send_retrying(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        content_type: str,
        timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        retries = _CONNECTION_RETRIES if method == "GET" else 0
        while True:
            try:
                return self._send(method, path, query, data, content_type, timeout, stream=False)
            except (NewConnectionError, ProtocolError) as error:
                if not retries:
                    raise self._unavailable(method, path, error) from error
                retries -= 1
            except HTTPError as error:
                raise self._unavailable(method, path, error) from error
            time.sleep(_RETRY_PAUSE * (0.5 + random.random()))  # noqa: S311 - jitter

    def stream(
        self, path: str, *, query: Mapping[str, str], timeout: float, silence: float
    ) -> urllib3.BaseHTTPResponse:
        """A GET whose answer is read line by line by the caller, who closes it. Raises ApiError.

        ``timeout`` is for the answer's headers; after them the stream may be silent for ``silence`` seconds.
        """
        try:
            response = self._send("GET", path, query, None, "", timeout, stream=True)
            if response.status >= 300:
                with contextlib.closing(response):
                    raise _error(response.status, response.read())
        except HTTPError as error:
            raise self._unavailable("GET", path, error) from error
        connection = getattr(response, "connection", None)
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(silence)
        return response

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        content_type: str,
        timeout: float,
        *,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        url = self._origin + self._prefix + path + (f"?{urlencode(query)}" if query else "")
        headers = {**self._headers, **self._credentials.headers()}
        if data is not None:
            headers["Content-Type"] = content_type
        return self._manager.request(
            method,
            url,
            body=data,
            headers=headers,
            timeout=urllib3.Timeout(connect=min(timeout, _CONNECT_SECONDS), read=timeout),
            preload_content=not stream,
            redirect=False,
            retries=False,
        )

    def _unavailable(self, method: str, path: str, error: HTTPError) -> Unavailable:
        return Unavailable(f"{method} {path}: no answer from the API server at {self.url}: {error}", reason="NoAnswer")

    def close(self) -> None:
        self._manager.clear()


def _decoded(data: bytes, what: str) -> Obj:
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise Unavailable(f"{what}: the answer is not JSON: {data[:200]!r}") from error
    if not isinstance(answer, dict):
        raise Unavailable(f"{what}: the answer is not an object: {data[:200]!r}")
    return answer


def _error(status: int, data: bytes) -> ApiError:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    return error_from_status(status, body, data[:200].decode("utf-8", "replace").strip())


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait; None when the server does not ask to try again, or asks for longer than we would wait."""
    if header is None or not header.isdigit() or int(header) > _LONGEST_RETRY_AFTER:
        return None
    return int(header) + random.random() * 0.5  # noqa: S311 - jitter


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=endpoint.ca)
        # Python 3.13 asks for extensions that many clusters' authorities lack, and that no other client asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"the certificate authority for {endpoint.url} is not a PEM certificate: {error}") from error
    if not endpoint.verify:
        _log.warning("the certificate of the API server is not verified", extra={"url": endpoint.url})
        urllib3.disable_warnings(InsecureRequestWarning)  # said once, not at every request
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if endpoint.client_certificate and endpoint.client_key:
        _load_client_certificate(context, endpoint.url, endpoint.client_certificate, endpoint.client_key)
    return context


def _load_client_certificate(context: ssl.SSLContext, url: str, certificate: str, key: str) -> None:
    """OpenSSL reads them from files only: they exist, private to us, for the time of this call."""
    with tempfile.TemporaryDirectory(prefix="gpu-dra-") as folder:
        file = Path(folder, "client.pem")
        file.touch(mode=0o600)
        file.write_text(f"{certificate.rstrip()}\n{key.rstrip()}\n")
        try:
            context.load_cert_chain(file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"the client certificate and key for {url} cannot be used: {error}") from error
