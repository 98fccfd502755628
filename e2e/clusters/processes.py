"""Processes that outlive the one that started them: none is lost, and no other can be taken for one.

A child starts in two steps: it waits on its standard input until its record is on disk, and ends when its starter dies
before that.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dra_driver.processes import Process
from e2e.clusters.interface import ClusterError

__all__ = ["Process", "start_detached", "wait_for_end", "wait_for_go"]


def start_detached(
    command: Sequence[str],
    *,
    log: Path,
    record: Callable[[Process], None],
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start ``command`` in a session of its own; it must read a line from its standard input before it does anything,
    and end when there is none. ``record`` writes its state file before that line is sent."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(environment) if environment is not None else None,
        )
    assert child.stdin is not None
    try:
        process = Process.of(child.pid)
        if process is None:
            raise ClusterError(f"{command[0]} ended at its start; see {log}")
        record(process)
        os.write(child.stdin.fileno(), b"go\n")
    except BrokenPipeError:
        raise ClusterError(f"{command[0]} ended at its start; see {log}") from None
    finally:
        child.stdin.close()
    return process


def wait_for_end(pid: int) -> None:
    """Until the process has ended, also when it had before. On a pidfd (pidfd_open(2)): it costs nothing meanwhile, and
    no other process is taken for this one."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [])
    finally:
        os.close(pidfd)


def wait_for_go() -> bool:
    """The child's half of :func:`start_detached`; False when its starter is gone."""
    return os.read(0, 16) == b"go\n"
