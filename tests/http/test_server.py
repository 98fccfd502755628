"""The HTTP server as friendly and other clients see it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dra_driver.http.connection import HttpLimits
from dra_driver.http.messages import HttpAnswer, HttpRequest, HttpStream
from dra_driver.http.server import HttpServer

LIMITS = HttpLimits(threads=2, connections=8, request_seconds=20.0, body_bytes=1000, streams=1)
BRIEF = HttpLimits(threads=2, connections=8, request_seconds=0.3, body_bytes=1000, streams=1)
LARGE = b"x" * (32 << 20)  # more than the kernel keeps for a client that does not read


class Site:
    """What is served."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.streams: list[threading.Event] = []  # set to end one
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def __call__(self, request: HttpRequest) -> HttpAnswer | HttpStream:
        match request.target:
            case "/slow":
                with self.lock:
                    self.inside += 1
                    self.most = max(self.most, self.inside)
                self.release.wait(30)
                with self.lock:
                    self.inside -= 1
            case "/large":
                return HttpAnswer(200, LARGE)
            case "/broken":
                raise RuntimeError("oops")
            case "/stream":
                end = threading.Event()
                self.streams.append(end)
                return HttpStream(self.chunks(end), end.set, "text/plain")
        return HttpAnswer(200, f"{request.method} {request.target} ".encode() + request.body)

    def chunks(self, end: threading.Event) -> Iterator[bytes]:
        yield b"first"
        end.wait(30)
        yield b"last"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.release.set()
    for stream in site.streams:
        stream.set()


@contextmanager
def serving(site: Site, limits: HttpLimits = LIMITS) -> Iterator[int]:
    """The port."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = int(listening.getsockname()[1])
    server = HttpServer("test-http", listening, site, limits)
    server.start()
    try:
        yield port
    finally:
        server.stop()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield connection


def get(port: int, target: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def exchange(port: int, request: bytes) -> bytes:
    """All that comes until the server ends the connection."""
    with connected(port) as connection:
        connection.sendall(request)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while block := connection.recv(65536):
        answer += block
    return answer


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_cut(client: socket.socket) -> bool:
    """Sends a byte more: after the end of the connection it is answered by a reset."""
    try:
        client.send(b"G")
    except OSError:
        return True
    return False


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("test-http")]


def test_requests_are_answered_one_after_the_other_on_one_connection(site: Site) -> None:
    with serving(site) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for number in range(3):
            connection.request("POST", f"/{number}", b"body")
            assert connection.getresponse().read() == f"POST /{number} body".encode()
        connection.close()


def test_requests_sent_ahead_are_answered_in_order(site: Site) -> None:
    with serving(site) as port:
        answers = exchange(
            port,
            b"\r\nGET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy"
            b"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n",
        )
    assert [answers.index(text) for text in (b"GET /a ", b"POST /b xy", b"GET /c ")] == sorted(
        answers.index(text) for text in (b"GET /a ", b"POST /b xy", b"GET /c ")
    )
    assert answers.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /a HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /a HTTP/1.0\n\n", b"200"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /a HTTP/3.0\r\n\r\n", b"505"),
        (b"POST /a HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"POST /a HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", b"413"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"GET /a HTTP/1.1\r\nX: " + b"x" * 70000, b"431"),
    ],
)
def test_an_answer_after_which_the_connection_ends(site: Site, request_text: bytes, status: bytes) -> None:
    with serving(site) as port:
        lines = exchange(port, request_text).splitlines()
        # A malformed first line is answered as HTTP/0.9 was: the page alone.
        assert lines[0].split()[1] == status or b"Error code: " + status in b"\n".join(lines)


def test_head_has_no_body(site: Site) -> None:
    with serving(site) as port:
        head, _, body = exchange(port, b"HEAD /a HTTP/1.1\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")
        assert b"Content-Length: 8" in head
        assert body == b""


def test_a_client_that_wants_leave_to_send_its_body_gets_it(site: Site) -> None:
    with serving(site) as port, connected(port) as connection:
        connection.sendall(
            b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"xy")
        assert read_all(connection).endswith(b"POST /a xy")


def test_a_request_that_breaks_is_answered(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with serving(site) as port:
        assert [get(port, "/broken")[0] for _ in range(3)] == [500] * 3
        assert get(port, "/a") == (200, b"GET /a ")
    assert "RuntimeError: oops" in caplog.text


def test_so_many_threads_and_no_more(site: Site) -> None:
    with serving(site) as port, ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(5)]
        for client in clients:
            client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        eventually(lambda: site.inside == LIMITS.threads)
        assert len(names()) == LIMITS.threads + 1
        site.release.set()
        assert all(read_all(client).endswith(b"GET /slow ") for client in clients)
        assert site.most == LIMITS.threads
    eventually(lambda: not names())


def test_a_byte_now_and_then_does_not_put_off_the_deadline(site: Site) -> None:
    with serving(site, BRIEF) as port, connected(port) as connection:
        eventually(lambda: is_cut(connection))
        assert get(port, "/a") == (200, b"GET /a ")


def test_a_connection_without_a_request_is_cut(site: Site) -> None:
    with serving(site, BRIEF) as port, connected(port) as connection:
        assert connection.recv(1) == b""


def test_a_kept_connection_has_no_deadline_until_the_next_request(site: Site) -> None:
    with serving(site, BRIEF) as port, connected(port) as kept, connected(port) as silent:
        kept.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert kept.recv(1000).endswith(b"GET /a ")
        assert silent.recv(1) == b"", "its deadline is over, and with it that of the first request"
        kept.sendall(b"GET /b HTTP/1.1\r\n\r\n")
        assert kept.recv(1000).endswith(b"GET /b ")
        kept.sendall(b"GET /c")
        assert kept.recv(1) == b""


def test_an_answer_that_takes_too_long_is_not_waited_for(site: Site) -> None:
    with serving(site, BRIEF) as port:
        assert exchange(port, b"GET /slow HTTP/1.1\r\n\r\n") == b""
        assert get(port, "/a") == (200, b"GET /a ")


def test_clients_that_do_not_read_hold_no_thread_and_are_cut(site: Site) -> None:
    limits = HttpLimits(threads=1, connections=8, request_seconds=2.0)
    with serving(site, limits) as port, ExitStack() as stack:
        lazy = [stack.enter_context(connected(port)) for _ in range(3)]
        for client in lazy:
            client.sendall(b"GET /large HTTP/1.0\r\n\r\n")
        assert get(port, "/a") == (200, b"GET /a ")
        eventually(lambda: all(map(is_cut, lazy)))


def test_the_connection_that_waits_longest_makes_room(site: Site) -> None:
    with serving(site) as port, ExitStack() as stack:
        working = stack.enter_context(connected(port))
        working.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        eventually(lambda: site.inside == 1)
        silent = [stack.enter_context(connected(port)) for _ in range(3 * LIMITS.connections)]
        assert get(port, "/a") == (200, b"GET /a ")
        assert silent[0].recv(1) == b""
        site.release.set()
        assert read_all(working).endswith(b"GET /slow "), "one that has work is never chosen"


def test_where_all_have_work_a_new_one_is_turned_away(site: Site) -> None:
    with serving(site) as port, ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(LIMITS.connections)]
        for client in clients:
            client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        eventually(lambda: site.inside == LIMITS.threads)
        with pytest.raises(OSError):
            get(port, "/a")
        site.release.set()
        assert all(read_all(client).endswith(b"GET /slow ") for client in clients)


def test_a_stream_ends_in_order_and_the_connection_is_kept(site: Site) -> None:
    with serving(site) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/stream")
        answer = connection.getresponse()
        assert answer.read(5) == b"first"
        site.streams[0].set()
        assert answer.read() == b"last"
        connection.request("GET", "/a")
        assert connection.getresponse().read() == b"GET /a "
        connection.close()


def begins_stream(client: socket.socket) -> bool:
    """False when it is refused."""
    client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
    answer = b""
    while b"first" not in answer and b" 429 " not in answer:
        answer += client.recv(1000)
    return b"first" in answer


def test_streams_have_a_number_and_end_with_their_client(site: Site) -> None:
    with serving(site) as port:
        with connected(port) as client:
            assert begins_stream(client)
            assert get(port, "/a") == (200, b"GET /a ")
            with connected(port) as other:
                assert not begins_stream(other)
            assert not site.streams[0].is_set()
        assert site.streams[0].wait(20), "the client has gone"

        def its_place_is_free() -> bool:
            with connected(port) as next_one:
                return begins_stream(next_one)

        eventually(its_place_is_free)


def test_stopping_lets_requests_under_way_and_streams_end(site: Site) -> None:
    with ExitStack() as stack:
        with serving(site) as port:
            stream, working = stack.enter_context(connected(port)), stack.enter_context(connected(port))
            working.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
            assert begins_stream(stream)
            eventually(lambda: site.inside == 1)
            threading.Timer(0.2, site.release.set).start()
        assert read_all(stream).endswith(b"4\r\nlast\r\n0\r\n\r\n")
        assert read_all(working).endswith(b"GET /slow ")
    eventually(lambda: not names())


def test_where_no_more_threads_can_be_started_those_that_there_are_do_the_work(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in ("test-http-1", "test-http-stream"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with serving(site) as port, ExitStack() as stack:
        for _ in range(2 * LIMITS.streams):
            assert exchange(port, b"GET /stream HTTP/1.1\r\n\r\n") == b""
        assert all(stream.is_set() for stream in site.streams)
        clients = [stack.enter_context(connected(port)) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        eventually(lambda: "beside the 1 there are" in caplog.text)
        site.release.set()
        assert all(read_all(client).endswith(b"GET /slow ") for client in clients)
    assert site.most == 1
