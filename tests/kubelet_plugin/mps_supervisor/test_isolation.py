"""Isolation: what the others rely on, of the real one and of the one that tests have; and what only the real one can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet_plugin.mps_supervisor.cgroups import PARENT, Cgroups
from kubelet_plugin.mps_supervisor.namespaces import Isolation, Namespaces, no_input
from kubelet_plugin.mps_supervisor.surroundings import Bind, Program, Surroundings
from tests.kubelet_plugin.mps_supervisor.plain import PlainIsolation, needs_rights

PATIENCE = 20.0


@pytest.fixture(params=["plain", pytest.param("real", marks=[pytest.mark.root, needs_rights])])
def isolation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Isolation]:
    made: Isolation = PlainIsolation() if request.param == "plain" else Namespaces()
    yield made
    for mounted in made.mounted_below(tmp_path):
        made.unmount(mounted)


def run(isolation: Isolation, program: Program, *arguments: str) -> str:
    with no_input() as null:
        process = isolation.start(program, arguments, standard_input=null, output=subprocess.PIPE)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output.decode()


def test_a_mount_is_there_until_it_is_unmounted(isolation: Isolation, tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "out er"
    outer.mkdir()
    inner.mkdir()
    assert isolation.mounted_below(tmp_path) == ()
    isolation.mount_tmpfs(outer, 64)
    isolation.mount_tmpfs(inner, 64)
    isolation.mount_tmpfs(inner, 64)
    assert set(isolation.mounted_below(tmp_path)) == {outer, inner}
    assert isolation.mounted_below(outer) == (outer,)
    isolation.unmount(outer)
    isolation.unmount(outer)
    isolation.unmount(tmp_path / "nothing")
    assert isolation.mounted_below(tmp_path) == (inner,)
    isolation.unmount(inner)
    assert isolation.mounted_below(tmp_path) == ()


def test_a_mount_below_a_link(isolation: Isolation, tmp_path: Path) -> None:
    """As where the kubelet's folder is one."""
    (tmp_path / "real" / "shm").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to("real")
    isolation.mount_tmpfs(link / "shm", 64)
    isolation.mount_tmpfs(link / "shm", 64)
    assert isolation.mounted_below(link) == (link / "shm",)
    isolation.unmount(link / "shm")
    assert isolation.mounted_below(link) == ()
    (tmp_path / "real" / "shm").rmdir()


def test_nothing_is_mounted_on_what_is_no_folder(isolation: Isolation, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        isolation.mount_tmpfs(tmp_path / "nothing", 64)
    assert isolation.mounted_below(tmp_path) == ()


def test_a_program_has_its_environment_and_a_session_of_its_own(isolation: Isolation) -> None:
    program = Program("/bin/sh", {"PATH": os.environ["PATH"], "WORD": "said"}, Surroundings())
    said = run(isolation, program, "-c", 'echo "$WORD $(pwd) $(cat /proc/$$/stat)"').split()
    assert said[:2] == ["said", "/"]
    pid, session = said[2], said[7]
    assert pid == session


def test_a_program_that_is_not_there_is_an_oserror(isolation: Isolation) -> None:
    with pytest.raises(OSError):
        run(isolation, Program("/no/program", {}, Surroundings()))


@pytest.mark.root
@needs_rights
def test_a_program_sees_what_is_bound_for_it_and_nobody_else_does(tmp_path: Path) -> None:
    shm, hidden = tmp_path / "shm", tmp_path / "hidden"
    shm.mkdir()
    hidden.mkdir()
    (hidden / "secret").write_text("of the host")
    (shm / "file").write_text("shared")
    around = Surroundings(
        scratch=(str(hidden),),
        folders=(str(hidden / "group"),),
        binds=(Bind(str(shm), "/dev/shm"), Bind(str(shm), str(hidden / "group"))),
    )
    program = Program("/bin/sh", {"PATH": os.environ["PATH"]}, around)
    said = run(Namespaces(), program, "-c", f"cat /dev/shm/file; ls {hidden}; cat {hidden}/group/file")
    assert said == "sharedgroup\nshared"
    assert [each.name for each in hidden.iterdir()] == ["secret"]
    assert Namespaces().mounted_below(tmp_path) == ()
    assert not Path("/dev/shm/file").exists()


@pytest.mark.root
@needs_rights
def test_a_program_may_have_a_root_of_its_own(tmp_path: Path) -> None:
    busybox = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), None)
    if busybox is None:
        pytest.skip("a program without libraries is needed: busybox")
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path(busybox).read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "here").write_text("inside")
    before = os.getcwd()
    assert run(Namespaces(), Program("/bin/busybox", {}, Surroundings(root=str(root))), "cat", "/here") == "inside"
    assert os.getcwd() == before
    assert not Path("/here").exists()


@pytest.mark.root
@needs_rights
def test_a_program_runs_in_the_namespaces_of_another_process(tmp_path: Path) -> None:
    """As from a container into its host."""
    (tmp_path / "inside").mkdir()
    setting = f"mount -t tmpfs tmpfs {tmp_path}/inside && echo other >{tmp_path}/inside/file && echo ready && cat"
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", setting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        around = Surroundings(tuple(f"/proc/{other.pid}/ns/{kind}" for kind in ("cgroup", "ipc", "uts", "net", "mnt")))
        said = run(Namespaces(), Program("/bin/cat", {}, around), f"{tmp_path}/inside/file")
        assert said == "other\n"
        other.stdin.close()
    assert not (tmp_path / "inside/file").exists()


@pytest.mark.root
@needs_rights
def test_a_process_is_moved_to_a_cgroup_of_its_own_and_the_cgroup_removed(tmp_path: Path) -> None:
    name = f"test-{os.getpid()}"
    cgroups = Cgroups(None)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            try:
                cgroups.move(child.pid, name)
            except OSError as error:
                pytest.skip(f"no cgroup can be written here: {error}")
            cgroups.move(child.pid, name)
            lines = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
            assert {line.split(":", 2)[2] for line in lines} <= {"/", f"/{PARENT}/{name}"}
            if cgroups.members(name):  # where it was at the root of every hierarchy, there was nothing to move
                assert cgroups.members(name) == {child.pid}
                with pytest.raises(OSError):
                    cgroups.remove(name)
        finally:
            child.communicate(b"\n")
    cgroups.remove(name)
    cgroups.remove(name)
    assert cgroups.members(name) == frozenset()
