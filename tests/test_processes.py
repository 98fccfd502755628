"""A process by id and start time is that process, and no other one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.processes import Process

PATIENCE = 20.0


def test_it_is_alive_until_it_has_ended_also_unreaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process is not None
    before = process.alive
    assert process.end(signal.SIGKILL, timeout=PATIENCE)
    assert (before, process.alive) == (True, False)  # a zombie is nobody
    assert Process.of(child.pid) is None
    child.communicate()
    assert process.end(signal.SIGKILL, timeout=0)


def test_another_process_with_its_id_is_not_it() -> None:
    me = Process.of(os.getpid())
    assert me is not None
    other = Process(me.pid, me.started - 1)
    assert not other.alive
    assert other.end(signal.SIGKILL, timeout=0)  # and so nobody is killed
    assert me.alive


def test_it_is_written_and_read(tmp_path: Path) -> None:
    Process(17, 18).write(tmp_path / "file")
    assert Process.read(tmp_path / "file") == Process(17, 18)
    assert Process.read(tmp_path / "nothing") is None
    (tmp_path / "file").write_text("17")
    assert Process.read(tmp_path / "file") is None


def test_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        me = Process.of(os.getpid())
        assert me is not None
        if not Path(f"/proc/{me.pid}/task/{me.pid}/children").exists():
            pytest.skip("the kernel has no list of children")
        assert child.pid in {each.pid for each in me.children()}
        child.communicate(b"\n")
