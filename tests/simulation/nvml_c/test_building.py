"""The C library is compiled once, without a warning, and a node is made without it where there is no compiler."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dra_driver.simulation.hardware import create_state, host_root, load_machine
from dra_driver.simulation.hardware.node_folder import make_node
from dra_driver.simulation.nvml_c.building import COMPILER, c_library, compile_command, write_sources
from tests.simulation.nvml_c.twins import LIBRARY, needs_compiler


def fake_compiler(folder: Path, script: str) -> Path:
    """A ``cc`` that notes each call in ``calls``."""
    folder.mkdir()
    program = folder / COMPILER
    program.write_text(f'#!/bin/sh\necho call >> "{folder}/calls"\n{script}\n')
    program.chmod(0o755)
    return folder / "calls"


PRODUCES = 'while [ "$1" != -o ]; do shift; done; echo library > "$2"'


@needs_compiler
def test_no_warning(tmp_path: Path) -> None:
    write_sources(tmp_path)
    options = ("-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror")
    command = compile_command(COMPILER, tmp_path, tmp_path / "library.so", *options)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_exports_nothing_but_nvml(tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm on the PATH")
    library = tmp_path / "library.so"
    library.write_bytes(c_library().content or b"")
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    assert {name for name in names if not name.startswith("nvml")} == set()
    assert len(names) > 80


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_compiler(tmp_path / "bin", PRODUCES)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert [c_library(tmp_path / "cache").content for _ in range(3)] == [b"library\n"] * 3
    assert calls.read_text() == "call\n"
    (tmp_path / "bin" / COMPILER).write_text((tmp_path / "bin" / COMPILER).read_text() + "# another version\n")
    c_library(tmp_path / "cache")
    assert calls.read_text() == "call\n" * 2


def test_it_may_be_compiled_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path / "bin", PRODUCES)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: c_library(tmp_path / "cache").content, range(8)))
    assert made == [b"library\n"] * 8
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_compiler(tmp_path / "bin", PRODUCES)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "file").touch()
    assert [c_library(tmp_path / "file" / "cache").content for _ in range(2)] == [b"library\n"] * 2
    assert calls.read_text() == "call\n" * 2


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path / "bin", PRODUCES)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.delenv("GPU_DRA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    c_library()
    assert len(list((tmp_path / "xdg/gpu-dra/nvml").iterdir())) == 1
    monkeypatch.setenv("GPU_DRA_CACHE", str(tmp_path / "chosen"))
    c_library()
    assert len(list((tmp_path / "chosen/nvml").iterdir())) == 1


def test_a_node_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = make_node(tmp_path / "node", load_machine("t4"), "seed")
    assert (tmp_path / "node/host" / LIBRARY).read_text() == "simulated libnvidia-ml.so.580.105.08\n"
    wanted = "\nno program can load libnvidia-ml.so.1 from it: there is no C compiler (cc) on the PATH"
    assert made.sentence().endswith(wanted)


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path / "bin", "echo 'fatal: no headers' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("GPU_DRA_CACHE", str(tmp_path / "cache"))
    create_state("t4", tmp_path / "state.json")
    host_root.build(tmp_path / "host", tmp_path / "state.json")
    assert (tmp_path / "host" / LIBRARY).read_text().startswith("simulated ")
    assert c_library().problem == f"{tmp_path}/bin/cc does not compile it: fatal: no headers"


@needs_compiler
def test_nothing_of_the_tree_changes_but_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state.json"
    create_state("a30", state)
    folder = tmp_path / "host" / host_root.LIBRARY_FOLDER

    def names() -> dict[str, tuple[bool, int]]:
        return {path.name: (path.is_symlink(), path.stat().st_mode) for path in folder.iterdir()}

    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        host_root.build(tmp_path / "host", state)
    before = names()
    assert host_root.build(tmp_path / "host", state) == 1
    assert names() == before
    assert (folder / ".simulated-state").read_text() == "../../../../state.json\n"


@needs_compiler
def test_a_library_that_is_there_stays_where_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's image has none; the node's folder may have been made outside of it."""
    assert make_node(tmp_path / "node", load_machine("t4"), "seed").no_library == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    made = make_node(tmp_path / "node", load_machine("t4"), "seed")
    assert (made.files_changed, made.no_library) == (0, "")
