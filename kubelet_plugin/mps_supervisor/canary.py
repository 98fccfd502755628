"""Does work get through? A small program that is an MPS client like any other is asked (``looks`` says why).

It is the administrator's (``spec.mps.canaryProgram``): a CUDA program that runs a kernel and ends with 0. One that
takes too long has not got through. Without multi-user mode a server serves one user, and another user's client waits
for all of its clients to end; so the canary is only run for servers of our own user.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dra_driver.mps.group import LEGACY, SERVER, GroupFolders, MpsGroup
from kubelet_plugin.mps_supervisor.control import kill, shortened
from kubelet_plugin.mps_supervisor.namespaces import Isolation, no_input
from kubelet_plugin.mps_supervisor.surroundings import PIPE_DIRECTORY, Home, Program

_SECONDS = 10.0  # a busy GPU makes it wait, and the first context takes a second


class Canary:
    """``program``: below the driver root; None for no canary."""

    def __init__(self, home: Home, isolation: Isolation, program: Path | None) -> None:
        self._home = home
        self._isolation = isolation
        self._program = program

    def sent(self, group: MpsGroup, folders: GroupFolders, servers: Iterable[int]) -> str | None:
        """ "" when it got through, else why not; None when there is nothing to be found out. Raises OSError."""
        if self._program is None or not any(group.multi_user or _is_ours(pid) for pid in servers):
            return None
        program = _to_server(self._home.client(folders, str(self._program), group.protocol), group)
        with no_input() as null:
            process = self._isolation.start(program, (), standard_input=null, output=subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            kill(process)
            return f"{self._program} did not end within {_SECONDS:g} s"
        if process.returncode != 0:
            said = shortened(output.decode(errors="replace"))
            return f"{self._program} ended with {process.returncode}{f': {said}' if said else ''}"
        return ""


def _to_server(program: Program, group: MpsGroup) -> Program:
    """With protocol 3 the daemon's own directory would make a server of its own for us: it is to be the group's."""
    if group.protocol == LEGACY:
        return program
    pipe = program.environment[PIPE_DIRECTORY]
    return replace(program, environment={**program.environment, PIPE_DIRECTORY: f"{pipe}/{SERVER}"})


def _is_ours(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except OSError:  # it has ended
        return False
