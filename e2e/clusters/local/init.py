"""Process 1 of a machine: prepares the private mounts, runs components, reaps everything that is orphaned.

Started as ``python -m e2e.clusters.local.init <spec.json>`` inside fresh namespaces. It listens on a unix socket and
answers one JSON object a line: ``start``, ``stop``, ``status``. When it ends, the kernel ends every process of the
machine and its mounts and links are gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.clusters.local import cgroups
from e2e.clusters.local.mounts import prepare_mounts

_TICK_SECONDS = 0.02
_REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 1 << 20


@dataclass
class Supervisor:
    """The components of this machine by name, with the pids they have here."""

    logs: Path
    running: dict[str, int] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start ``command`` in a session of its own, its output appended to ``<logs>/<name>.log``."""
        if name in self.running:
            raise ValueError(f"{name} runs already, as pid {self.running[name]}")
        log = os.open(self.logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        try:
            self.running[name] = os.posix_spawn(
                command[0],
                list(command),
                {**os.environ, **environment},
                file_actions=actions,
                setpgroup=0,
                # Signals that this process blocks or ignores are not handed on.
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGTERM, signal.SIGINT),
            )
        finally:
            os.close(log)
            os.close(null)
        return self.running[name]

    def stop(self, name: str, number: int, timeout: float) -> bool:
        """Signal ``name`` and wait; SIGKILL after ``timeout`` seconds. True when the first signal was enough."""
        pid = self.running.get(name)
        if pid is None:
            return True
        os.kill(pid, number)
        if self._gone(name, timeout):
            return True
        os.kill(pid, signal.SIGKILL)
        self._gone(name, timeout)
        return False

    def reap(self) -> None:
        """Collect every child that has ended, also those that components left to us."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self.running = {name: other for name, other in self.running.items() if other != pid}

    def _gone(self, name: str, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while name in self.running and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS)
            self.reap()
        return name not in self.running


def answer(supervisor: Supervisor, request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one request; what goes wrong is answered as ``{"error": ...}``."""
    try:
        match request["do"]:
            case "start":
                pid = supervisor.start(request["name"], request["command"], request.get("environment") or {})
                return {"pid": pid}
            case "stop":
                gently = supervisor.stop(request["name"], request.get("signal", signal.SIGTERM), request["timeout"])
                return {"gently": gently}
            case "status":
                return {"running": supervisor.running}
            case other:
                return {"error": f"unknown request {other!r}"}
    except (KeyError, ValueError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def serve(listener: socket.socket, supervisor: Supervisor) -> None:
    """Until this process is killed. One request at a time: there is one who asks."""
    wake, woken = socket.socketpair()
    for end in (wake, woken, listener):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is woken:
                with contextlib.suppress(BlockingIOError):
                    while woken.recv(4096):
                        pass
                supervisor.reap()
            else:
                serve_one(listener, supervisor)


def serve_one(listener: socket.socket, supervisor: Supervisor, seconds: float = _REQUEST_SECONDS) -> None:
    """One request, if its line comes within ``seconds``. Whatever a caller does, this process goes on: it is all that
    keeps the machine alive."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return
    with connection:
        try:
            line = _read_line(connection, time.monotonic() + seconds)
            if line:
                connection.settimeout(seconds)
                connection.sendall(json.dumps(answer(supervisor, json.loads(line))).encode() + b"\n")
        except (OSError, ValueError, TypeError) as error:
            print(f"init: a request was not answered: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _read_line(connection: socket.socket, until: float) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _REQUEST_BYTES:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it did not come to its end in time")
        connection.settimeout(left)
        block = connection.recv(4096)
        if not block:
            break
        line += block
    return line


def main(arguments: Sequence[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a machine ends by SIGKILL from outside only
    socket.sethostname(spec["hostname"])
    # The socket is bound before the mounts: they may hide its folder's path, not the open socket.
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    address = Path(spec["socket"])
    address.unlink(missing_ok=True)
    listener.bind(str(address))
    cgroups.mount_inside()
    prepare_mounts(spec)
    logs = Path(spec["logs"])
    listener.listen(8)
    serve(listener, Supervisor(logs))


if __name__ == "__main__":
    main(sys.argv[1:])
