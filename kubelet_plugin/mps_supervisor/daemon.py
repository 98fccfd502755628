"""One group's control daemon: started, given its settings, ended with all that belongs to it.

It runs in the foreground (``-f``), so that its process id is known before it does anything; ``-d`` would fork twice,
and a supervisor killed meanwhile would not know of it. It is nobody's concern that it is our child: it has a session of
its own, and the next supervisor, whose child it is not, does the same with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dra_driver.mps.errors import GroupFailed, GroupTimeout
from dra_driver.mps.group import LEGACY, NAMED, GroupFolders, MpsGroup
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor.cgroups import OwnCgroups, cgroup_of
from kubelet_plugin.mps_supervisor.control import (
    SERVERS,
    START_SERVER,
    STATUS,
    Control,
    Declined,
    NoAnswer,
    Runs,
    last_words,
    refused,
    settings_commands,
    whole_numbers,
)
from kubelet_plugin.mps_supervisor.named import ServerStart, Shares
from kubelet_plugin.mps_supervisor.named_answers import QUIT
from kubelet_plugin.mps_supervisor.namespaces import Isolation, endless_input, no_input
from kubelet_plugin.mps_supervisor.surroundings import MARK, Home

OUTPUT = "daemon.log"  # what the program prints, beside the real one's control.log and server.log

_ATTEMPT_SECONDS = 2.0  # for one question while it starts: nobody waits longer for the end of a start that is given up
_LEAST_SECONDS = 0.2
_LISTENS_SECONDS = 0.01  # how often it is looked whether it listens: a start takes little longer than the daemon's own
_PAUSE_SECONDS = 0.1  # between two questions
_ASKED_ANYWAY_SECONDS = 1.0  # without the file that says it listens, should one have another name for it
_QUIT_SECONDS = 2.0  # beyond the time that clients have
_KILL_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_PROC = Path("/proc")


class Daemons:
    """Thread-safe, for different groups."""

    def __init__(self, home: Home, isolation: Isolation, cgroups: OwnCgroups, runs: Runs) -> None:
        self.control = Control(home, isolation, runs)
        self.shares = Shares(self.control)
        self._home = home
        self._isolation = isolation
        self._cgroups = cgroups
        self._children: dict[int, subprocess.Popen[bytes]] = {}  # those that we have to reap

    def launch(self, group: MpsGroup, folders: GroupFolders) -> Process:
        """Start it. Raises GroupFailed, OSError."""
        program = self._home.daemon(folders, group.devices, group.protocol)
        silence = endless_input(folders.root) if group.protocol == NAMED else no_input()
        with silence as silent, (folders.log / OUTPUT).open("ab") as output:
            child = self._isolation.start(program, _options(group), standard_input=silent, output=output.fileno())
        self._children[child.pid] = child
        process = Process.of(child.pid)
        if process is None:
            self.reap()
            raise GroupFailed(f"the control daemon of MPS group {group.id} ended at once: {_last_words(folders)}")
        return process

    def settle(
        self, group: MpsGroup, folders: GroupFolders, daemon: Process, until: float, given_up: threading.Event
    ) -> None:
        """Give it its settings, or its server, and return when it has answered. ``until``: of time.monotonic.

        Raises GroupFailed, GroupTimeout, OSError.
        """
        attempt: Callable[[float], str] = partial(self._set, group, folders)
        if group.protocol == NAMED:
            attempt = ServerStart(self.control, group, folders).attempt
        began, pause, last = time.monotonic(), _LISTENS_SECONDS, "it does not listen"
        while not given_up.wait(pause):
            now = time.monotonic()
            if not daemon.alive:
                self.reap()
                raise GroupFailed(f"the control daemon of MPS group {group.id} ended: {_last_words(folders)}")
            if now >= until:
                raise GroupTimeout(
                    f"the control daemon of MPS group {group.id} did not answer within {now - began:.0f} s: {last}",
                    hint=f"see {folders.log}; it is tried again",
                )
            if not (folders.pipe / "control").exists() and now < began + _ASKED_ANYWAY_SECONDS:
                continue
            if until - now < _LEAST_SECONDS:  # no answer in no time says nothing
                continue
            try:
                last = attempt(min(_ATTEMPT_SECONDS, until - now))
            except NoAnswer as error:
                last = str(error)
            if not last:
                return
            pause = _PAUSE_SECONDS
        raise GroupTimeout(f"the start of MPS group {group.id} was given up: it is stopped", hint="it is tried again")

    def _set(self, group: MpsGroup, folders: GroupFolders, seconds: float) -> str:
        """Empty: it has all its settings."""
        commands = settings_commands(group.active_thread_percentage, sorted(group.pinned_memory_mib.items()))
        problem = refused(group.active_thread_percentage, self.control.ask(folders, *commands, seconds=seconds))
        if problem is not None:
            raise GroupFailed(f"the control daemon of MPS group {group.id} refuses its settings: {problem}")
        return self._serving(folders, seconds) if group.serve else ""

    def _serving(self, folders: GroupFolders, seconds: float) -> str:
        """Empty: it has a server that takes clients."""
        servers = whole_numbers(self.control.ask(folders, SERVERS, seconds=seconds))
        if not servers:
            self.control.ask(folders, f"{START_SERVER} -uid {os.getuid()}", seconds=seconds)
            return "its server is started"
        said = self.control.ask(folders, f"{STATUS} {servers[0]}", seconds=seconds)
        return "" if said[-1:] == ("ACTIVE",) else f"its server is {' '.join(said) or 'not there'}"

    def end(self, folders: GroupFolders, daemon: Process | None, drain: float, protocol: int = LEGACY) -> None:
        """End it with its servers: asked first, if it is alive, then killed. Its clients have ``drain`` seconds.

        Raises GroupFailed when something cannot be killed, OSError.
        """
        if daemon is not None and daemon.alive:
            self._quit(folders, daemon, drain, protocol)
        until = time.monotonic() + _KILL_SECONDS
        while left := self.processes(folders):
            for process in left:
                process.end(signal.SIGKILL, timeout=0)
            self.reap()
            if time.monotonic() > until:
                pids = ", ".join(str(process.pid) for process in left)
                raise GroupFailed(
                    f"processes {pids} of MPS group {folders.root.name} cannot be killed: they hang in the kernel",
                    hint="the GPU or its driver does not answer; reset the GPU or reboot the node",
                )
            time.sleep(_LOOK_SECONDS)
        self.reap()

    def processes(self, folders: GroupFolders) -> tuple[Process, ...]:
        """All that runs for the group, also what another supervisor has started."""
        marked = {process for process, root in marked_processes().items() if root == str(folders.root)}
        inside = {Process.of(pid) for pid in self._cgroups.members(cgroup_of(folders))}
        return tuple(sorted(marked | {each for each in inside if each is not None}, key=lambda each: each.pid))

    def reap(self) -> None:
        """Our children that have ended are taken note of, so that no zombie is left."""
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                self._children.pop(pid, None)

    def _quit(self, folders: GroupFolders, daemon: Process, drain: float, protocol: int) -> None:
        seconds = max(0, round(drain))
        try:
            if protocol == NAMED:
                self.shares.drain(folders, drain)
                self.control.run(folders, *QUIT, seconds=_QUIT_SECONDS)
            else:
                self.control.ask(folders, f"quit -t {seconds}", seconds=seconds + _QUIT_SECONDS)
        except (NoAnswer, Declined, GroupFailed):
            return  # it is killed
        until = time.monotonic() + _QUIT_SECONDS
        while daemon.alive and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)


def marked_processes() -> Mapping[Process, str]:
    """What runs for any group, by the group's folder as its environment names it. Not ourselves."""
    found, wanted = {}, f"{MARK}=".encode()
    for name in os.listdir(_PROC):
        # Who it is, before what it has: a process that takes over the id in between is another one.
        process = Process.of(int(name)) if name.isdigit() and int(name) != os.getpid() else None
        if process is None:
            continue
        try:
            environment = (_PROC / name / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to somebody else
            continue
        root = next((each[len(wanted) :] for each in environment if each.startswith(wanted)), None)
        if root is not None:
            found[process] = os.fsdecode(root)
    return found


def _options(group: MpsGroup) -> tuple[str, ...]:
    """NVIDIA's man page, and MPS v3 Interface, Control Daemon Options."""
    if group.protocol == NAMED:
        return ("-f", "-p", str(NAMED), *(("-m",) if group.multi_user else ()))
    return ("-f", "-M") if group.multi_user else ("-f",)


def _last_words(folders: GroupFolders) -> str:
    """The end of what it wrote."""
    said = (last_words(folders.log / name) for name in (OUTPUT, "control.log"))
    return next((each for each in said if each), f"it said nothing; see {folders.log}")
