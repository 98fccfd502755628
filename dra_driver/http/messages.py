"""HTTP/1.1 requests out of bytes, and answers into bytes. Nothing here waits for anything."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

PLAIN_TEXT = "text/plain; charset=utf-8"
_HEAD_BYTES = 64 << 10
_HEAD_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    target: str  # path and query, as they came
    headers: Message
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    body: bytes
    content_type: str = PLAIN_TEXT


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer that goes on until ``chunks`` end, or until ``close``, which any thread may call, ends them."""

    chunks: Iterator[bytes]
    close: Callable[[], None]
    content_type: str


Refuse = Callable[[int, str], HttpAnswer]


def refuse_plainly(status: int, why: str) -> HttpAnswer:
    return HttpAnswer(status, f"{why}\n".encode())


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body, and what is said to the client before that comes."""

    request: HttpRequest
    body_bytes: int
    keep: bool  # the connection, for another request
    interim: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """What is no request that could be served. The connection ends with the answer."""

    answer: bytes


def take_head(received: bytearray, largest_body: int, refuse: Refuse) -> Head | Refused | None:
    """Takes a head off the start of ``received``; None while it has not come as a whole."""
    while bytes(received[:1]) in (b"\r", b"\n"):  # RFC 9112 2.2: an empty line before a request is overlooked
        del received[0]
    end = _HEAD_END.search(received)
    if end is None:
        if len(received) <= _HEAD_BYTES:
            return None
        return Refused(encode(refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large"), keep=False))
    head = bytes(received[: end.end()])
    del received[: end.end()]
    parsed = _Parser(head)
    if not parsed.parse():
        return Refused(parsed.written)
    if "Transfer-Encoding" in parsed.headers:
        answer = refuse(HTTPStatus.NOT_IMPLEMENTED, "a body needs Content-Length, no transfer encoding is understood")
        return Refused(encode(answer, keep=False))
    length = parsed.headers.get("Content-Length", "0").strip()
    if not (length.isascii() and length.isdigit()):
        return Refused(encode(refuse(HTTPStatus.BAD_REQUEST, "Content-Length is not a number"), keep=False))
    if int(length) > largest_body:
        answer = refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body of the request is too large")
        return Refused(encode(answer, keep=False))
    keep = parsed.request_version >= "HTTP/1.1" and not parsed.close_connection
    return Head(HttpRequest(parsed.command, parsed.path, parsed.headers), int(length), keep, parsed.written)


def encode(answer: HttpAnswer, *, keep: bool, only_head: bool = False) -> bytes:
    """``only_head``: the answer to HEAD."""
    lines = [*_first_lines(answer.status, answer.content_type), f"Content-Length: {len(answer.body)}"]
    head = "\r\n".join([*lines, *([] if keep else ["Connection: close"]), "", ""]).encode("latin-1")
    return head if only_head else head + answer.body


def encode_stream_head(stream: HttpStream) -> bytes:
    lines = [*_first_lines(HTTPStatus.OK, stream.content_type), "Transfer-Encoding: chunked", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def encode_chunk(chunk: bytes) -> bytes:
    """An empty one ends the stream."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


def _first_lines(status: int, content_type: str) -> list[str]:
    phrase = HTTPStatus(status).phrase
    return [f"HTTP/1.1 {status} {phrase}", f"Date: {formatdate(usegmt=True)}", f"Content-Type: {content_type}"]


class _Parser(BaseHTTPRequestHandler):
    """The standard library's reading of a head, on bytes in memory."""

    protocol_version = "HTTP/1.1"

    def __init__(self, head: bytes) -> None:  # not the base's, which would serve a connection
        self.rfile = io.BytesIO(head)
        self.client_address = ("", 0)
        self.command, self.path, self.request_version, self.requestline = "", "", "", ""
        self.close_connection = True
        self._out = io.BytesIO()
        self.wfile = self._out

    def parse(self) -> bool:
        """False for no HTTP; ``written`` has the answer then."""
        self.raw_requestline = self.rfile.readline()
        return self.parse_request()

    @property
    def written(self) -> bytes:
        return self._out.getvalue()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """What is wrong is told to the client."""
