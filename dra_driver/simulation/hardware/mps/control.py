"""nvidia-cuda-mps-control -d and -f: ``python -m dra_driver.simulation.hardware.mps.control STATE OPTION...``.

The command language is spoken by the shell script (``scripts``), which starts this for options only. ``-d`` returns
when the daemon takes requests. Exit codes: 0, or 1 when the daemon did not start (another has the pipe directory, a
directory cannot be made, the state cannot be read).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dra_driver.simulation.hardware.mps import protocols, values
from dra_driver.simulation.hardware.mps.daemon import Daemon, Settings
from dra_driver.simulation.hardware.mps.devices import State
from dra_driver.simulation.hardware.mps.faults import Played
from dra_driver.simulation.hardware.mps.logs import Log, to_null
from dra_driver.simulation.hardware.mps.named_daemon import NamedDaemon
from dra_driver.simulation.hardware.mps.options import Options, options_of
from dra_driver.simulation.hardware.mps.pipes import PipeDirectory, pipe_directory

_DEFAULT_LOGS = "/var/log/nvidia-mps"
_READY = b"ready"


class NotStarted(Exception):
    """The daemon cannot run; its text is for standard error."""


class Runs(Protocol):
    """A daemon of either protocol. ``tick``: how long it may be left alone, seconds; None for ever."""

    played: Played
    tick: float | None
    force_after: float | None

    @property
    def is_over(self) -> bool: ...
    @property
    def quitting(self) -> bool: ...
    def inputs(self) -> Mapping[int, Callable[[], None]]: ...
    def quit(self, seconds: float | None) -> None: ...
    def force(self) -> None: ...
    def answer_what_is_due(self) -> None: ...


def main(arguments: Sequence[str]) -> int:
    state_file, options = Path(arguments[0]), list(arguments[1:])
    try:
        named = protocols.speaks_named(State(state_file).driver_version())
    except (OSError, ValueError):
        named = False  # what is wrong is told when the daemon reads it
    chosen = options_of(options, os.environ, named=named)
    if chosen is None:
        more = " [-p 2|3]" if named else ""
        sys.stderr.write(
            f"usage: nvidia-cuda-mps-control [-d | -f] [-M | --multiuser-server]{more}; without: commands\n"
        )
        return 1
    try:
        settings = _settings(state_file, chosen)
        if chosen.foreground:
            _run(settings, lambda: None, echo=1)
            return 0
        return _start_daemon(settings)
    except (NotStarted, values.Invalid, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _settings(state_file: Path, options: Options) -> Settings:
    environment = os.environ
    percentage = environment.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
    limits = environment.get("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")
    return Settings(
        state_file=state_file,
        pipes=pipe_directory(environment),
        logs=Path(environment.get("CUDA_MPS_LOG_DIRECTORY") or _DEFAULT_LOGS).absolute(),
        devices=environment.get("CUDA_VISIBLE_DEVICES"),
        percentage=100.0 if percentage is None else values.percentage(percentage),
        limits={} if limits is None else values.limits(limits),
        multi_user=options.multi_user,
        protocol=options.protocol,
    )


def _start_daemon(settings: Settings) -> int:
    """Fork twice, so that the daemon is nobody's child and has a session of its own; wait until it is ready."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os.waitpid(child, 0)
        said = b""
        while part := os.read(reading, 4096):
            said += part
        if said == _READY:
            return 0
        sys.stderr.write(said.decode() or "The MPS control daemon has ended at once\n")
        return 1
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        os.chdir("/")
        to_null()
        _run(settings, lambda: _tell(writing, _READY), echo=None)
        code = 0
    except (NotStarted, OSError) as error:
        _tell(writing, f"{error}\n".encode())
        code = 1
    os._exit(code)


def _tell(descriptor: int, data: bytes) -> None:
    try:
        os.write(descriptor, data)
        os.close(descriptor)
    except OSError:  # whoever started us does not wait any more
        return


def _run(settings: Settings, ready: Callable[[], None], *, echo: int | None) -> None:
    """Be the daemon until it is over."""
    Path("/proc/self/comm").write_text("nvidia-cuda-mps-control")  # cut to 15 characters, as the real one's is
    pipes = PipeDirectory(settings.pipes)
    if not pipes.lock():
        raise NotStarted("An instance of this daemon is already running")
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = Log(settings.logs / "control.log", "Control", echo)
    if settings.protocol == protocols.LEGACY:  # else each server has one in a folder of its own
        Log(settings.logs / "server.log", "Server")
    state = State(settings.state_file)
    played = Played(state, settings.devices)
    signals = _Signals.listen()
    played.at_start()
    daemon = _daemon(settings, pipes, state, log, played)
    pipes.open()
    log(f"Starting control daemon using socket {settings.pipes}/control")
    log(f"To connect CUDA applications to this daemon, set env CUDA_MPS_PIPE_DIRECTORY={settings.pipes}")
    ready()
    _loop(daemon, signals)
    pipes.remove()
    daemon.answer_what_is_due()  # to "quit": what is left after it is the end of this process
    log("Exiting")


def _daemon(settings: Settings, pipes: PipeDirectory, state: State, log: Log, played: Played) -> Runs:
    if settings.protocol == protocols.NAMED:
        return NamedDaemon(settings, pipes, state, log, played)
    daemon = Daemon(settings, pipes, state, log, played, settings.percentage, {})
    daemon.limits.update((daemon.device(name), size) for name, size in settings.limits.items())
    return daemon


@dataclass(frozen=True, slots=True)
class _Signals:
    """SIGTERM and SIGINT, as something to wait for."""

    end: socket.socket

    @staticmethod
    def listen() -> _Signals:
        mine, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.detach())
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: None)
        return _Signals(mine)


def _loop(daemon: Runs, signals: _Signals) -> None:
    deadline: float | None = None
    while True:
        if daemon.is_over:
            return
        daemon.answer_what_is_due()
        if daemon.quitting and deadline is None and daemon.force_after is not None:
            deadline = time.monotonic() + daemon.force_after
        wait = daemon.tick if deadline is None else max(0.0, deadline - time.monotonic())
        inputs = daemon.inputs()
        ready, _, _ = select.select([signals.end.fileno(), *inputs], [], [], wait)
        if deadline is not None and time.monotonic() >= deadline:
            daemon.force()
            deadline = None
            daemon.force_after = None
        for descriptor in ready:
            if descriptor in inputs:
                inputs[descriptor]()
            elif signals.end.recv(64) and not daemon.played.hangs("SIGTERM"):
                daemon.quit(0.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
