"""The forwarder, with a real network namespace: a server that only exists inside it answers outside of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.clusters.forward import Address, ForwardError, enter_network_of

# Brings its namespace's loopback up (SIOCSIFFLAGS), then answers each request with its length, after the end of it.
_SERVER = """
import fcntl, socket, struct, sys
control = socket.socket()
fcntl.ioctl(control, 0x8914, struct.pack("16sh22x", b"lo", 1))
server = socket.create_server(("127.0.0.1", 7443))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        count = 0
        while block := connection.recv(65536):
            count += len(block)
        connection.sendall(f"{count} bytes".encode())
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def test_an_address_is_host_and_port() -> None:
    assert Address.parse("127.0.0.1:6443") == Address("127.0.0.1", 6443)
    assert Address.parse("[::1]:0") == Address("::1", 0)
    assert Address("::1", 0).family is socket.AF_INET6


def test_a_process_that_is_gone_is_named() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(ForwardError, match=f"process {process.pid}: No such file"):
        enter_network_of(process.pid)


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A TCP server on 127.0.0.1:7443 of a network namespace of its own."""
    command = ["unshare", "--net", "--kill-child", sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.fixture
def forward(server: subprocess.Popen[str], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A running forwarder and its port."""
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "e2e.clusters.forward", "--listen", "127.0.0.1:0"]
    command += ["--namespace-of", str(server.pid), "--target", "127.0.0.1:7443", "--port-file", str(port_file)]
    with subprocess.Popen([*command, "--parent", str(os.getpid())]) as process:
        deadline = time.monotonic() + 30
        while not port_file.exists():
            assert process.poll() is None, "the forwarder ended at its start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process, int(port_file.read_text())
        process.kill()
    port_file.unlink(missing_ok=True)


def _ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while block := connection.recv(65536):
            answer += block
        return answer


@needs_root
@pytest.mark.root
@pytest.mark.process
def test_forwards_both_ways_and_ends_at_sigterm(forward: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = forward
    # The answer comes after the request's end: a forwarder that closes both directions at once would lose it.
    assert _ask(port, b"x" * 3_000_000) == b"3000000 bytes"
    assert _ask(port, b"") == b"0 bytes"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        _ask(port, b"late")


@needs_root
@pytest.mark.root
@pytest.mark.process
def test_ends_with_the_process_of_the_namespace(
    server: subprocess.Popen[str], forward: tuple[subprocess.Popen[bytes], int]
) -> None:
    server.kill()
    assert forward[0].wait(10) == 0
