"""A TCP forwarder from this network namespace into another one: how a suite reaches an API server inside it.

``python -m e2e.clusters.forward --listen 127.0.0.1:0 --namespace-of PID --target HOST:PORT --port-file FILE``

The listening socket is made first and so belongs to the caller's namespace; then the process enters the network
namespace of PID, and every connection that it makes for an accepted one belongs there (network_namespaces(7): a socket
keeps the namespace it was created in). FILE holds the port once connections are accepted. The process ends with 0 at
SIGTERM or SIGINT, and when PID or ``--parent`` ends. It needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_BLOCK = 1 << 16


class ForwardError(Exception):
    """The forwarder could not start; the message says what failed."""


@dataclass(frozen=True, slots=True)
class Address:
    """``host:port``; the host is an IP address (a name would be looked up in the wrong namespace)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
        return cls(host.strip("[]"), int(port))

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Accepts on ``listener`` and hands each connection to ``target``, both directions until both have ended."""

    listener: socket.socket
    target: Address
    ends_with: tuple[int, ...]  # pidfds

    async def run(self) -> None:
        """Serve until a signal arrives or one of the processes ends."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        for pidfd in self.ends_with:
            loop.add_reader(pidfd, ended.set)  # a pidfd is readable once its process has ended (pidfd_open(2))
        server = await asyncio.start_server(self._accept, sock=self.listener, limit=_BLOCK)
        await ended.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self.target.host, self.target.port, limit=_BLOCK)
        except OSError as error:
            print(f"forward: {self.target.host}:{self.target.port}: {error}", file=sys.stderr, flush=True)
            writer.transport.abort()  # the caller sees a reset, as it would from a port where nothing listens
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, far_writer))
            both.create_task(_copy(far_reader, writer))
        for end in (writer, far_writer):
            end.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the source ends, then end the sink's direction only: the other one may still carry an answer."""
    try:
        while block := await source.read(_BLOCK):
            sink.write(block)
            await sink.drain()
        sink.write_eof()
    except OSError:
        # One side is gone without an end of its own: nothing of this connection can be saved.
        sink.transport.abort()


def enter_network_of(pid: int) -> None:
    """Move the calling thread into the network namespace of ``pid``. os.setns exists only since Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ForwardError(f"network namespace of process {pid}: {error.strerror}") from error
    try:
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise ForwardError(f"entering the network namespace of process {pid}: {reason} (it needs root)")
    finally:
        os.close(namespace)


def listen(address: Address) -> socket.socket:
    try:
        return socket.create_server((address.host, address.port), family=address.family, backlog=128)
    except OSError as error:
        raise ForwardError(f"listening on {address.host}:{address.port}: {error.strerror or error}") from error


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise ForwardError(f"process {pid}: {error.strerror}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.clusters.forward")
    parser.add_argument("--listen", type=Address.parse, default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--namespace-of", type=int, required=True, metavar="PID")
    parser.add_argument("--target", type=Address.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--port-file", type=Path, required=True, metavar="FILE")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process ends")
    options = parser.parse_args(arguments)
    try:
        # The pidfd first: it pins the process that the namespace is then taken from.
        ends_with = tuple(_pidfd(pid) for pid in (options.namespace_of, options.parent) if pid is not None)
        listener = listen(options.listen)
        enter_network_of(options.namespace_of)
    except ForwardError as error:
        print(f"forward: {error}", file=sys.stderr)
        return 1
    port_file: Path = options.port_file
    partial = port_file.with_name(f".{port_file.name}.part")
    partial.write_text(f"{listener.getsockname()[1]}\n")
    partial.replace(port_file)
    try:
        asyncio.run(Forwarder(listener, options.target, ends_with).run())
    finally:
        with contextlib.suppress(FileNotFoundError):
            port_file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
