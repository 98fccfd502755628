"""``gpu-dra machine create``: what an init container does again and again on a node in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dra_driver.cli.machine import app
from dra_driver.simulation.hardware import StateFile, faults, load_machine
from dra_driver.simulation.hardware.description import format_machine

runner = CliRunner()


def create(folder: Path, machine: str = "a30", seed: str = "node-1", *more: str) -> Result:
    return runner.invoke(app, ["create", "--machine", machine, "--seed", seed, "--folder", str(folder), *more])


def test_it_makes_the_state_and_the_tree_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "not/there"
    result = create(folder)
    assert result.exit_code == 0
    assert result.output.count("\n") == 1
    assert f"a30 (2 GPUs), seed 'node-1': {folder}/gpus.json made" in result.output
    assert StateFile(folder / "gpus.json").read().seed == "node-1"
    assert (folder / "host/dev/nvidia1").exists()
    assert (folder / "host/usr/bin/nvidia-smi").exists()


def test_again_keeps_faults_and_files(tmp_path: Path) -> None:
    create(tmp_path)
    faults.lose_gpu(tmp_path / "gpus.json", 1)
    before = {path: path.lstat().st_ino for path in tmp_path.rglob("*")}
    result = create(tmp_path)
    assert result.exit_code == 0
    assert "kept as it was, 0 files" in result.output
    assert StateFile(tmp_path / "gpus.json").read().faults.lost_gpus == (1,)
    assert {path: path.lstat().st_ino for path in tmp_path.rglob("*")} == before
    (tmp_path / "host/dev/nvidia0").unlink()
    assert "1 files" in create(tmp_path).output
    assert (tmp_path / "host/dev/nvidia0").exists()
    assert create(tmp_path, "a30", "node-1", "--replace").exit_code == 0
    assert StateFile(tmp_path / "gpus.json").read().faults.lost_gpus == (1,)


@pytest.mark.parametrize(("machine", "seed"), [("t4", "node-1"), ("a30", "node-2")])
def test_another_node_is_refused_unless_it_shall_replace(tmp_path: Path, machine: str, seed: str) -> None:
    create(tmp_path)
    before = (tmp_path / "gpus.json").read_bytes()
    refused = create(tmp_path, machine, seed)
    assert refused.exit_code == 1
    assert f"gpus.json is machine a30, seed 'node-1'; asked for is {machine}, seed {seed!r}" in refused.output
    assert f"delete {tmp_path}, or use --replace" in refused.output
    assert (tmp_path / "gpus.json").read_bytes() == before
    replaced = create(tmp_path, machine, seed, "--replace")
    assert replaced.exit_code == 0
    assert "made" in replaced.output
    state = StateFile(tmp_path / "gpus.json").read()
    assert (state.machine.name, state.seed) == (machine, seed)


def test_a_damaged_state_is_refused_unless_it_shall_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "gpus.json").write_text("{")
    refused = create(tmp_path)
    assert refused.exit_code == 1
    assert f"delete {tmp_path / 'gpus.json'}, or use --replace" in refused.output
    assert create(tmp_path, "a30", "node-1", "--replace").exit_code == 0
    assert StateFile(tmp_path / "gpus.json").read().seed == "node-1"


def test_a_new_release_may_describe_the_machine_better(tmp_path: Path) -> None:
    """UUIDs come from name and seed, so it is the same node; the state stays until somebody wants the new one."""
    machine = load_machine("a30")
    file = tmp_path / "a30.json"
    file.write_text(format_machine(machine.model_copy(update={"title": "an older title"})))
    folder = tmp_path / "node"
    create(folder, str(file))
    result = create(folder)
    assert result.exit_code == 0
    assert "description has changed since" in result.output
    assert StateFile(folder / "gpus.json").read().machine.title == "an older title"
    assert create(folder, "a30", "node-1", "--replace").exit_code == 0
    assert StateFile(folder / "gpus.json").read().machine == machine


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    assert "no recorded machine is named 'nope'" in create(tmp_path, "nope").output
    (tmp_path / "file").touch()
    result = create(tmp_path / "file")
    assert result.exit_code == 1
    assert "gpu-dra machine create: " in result.output


@pytest.mark.process
def test_two_pods_at_once_make_one_node(tmp_path: Path) -> None:
    arguments = ["machine", "create", "--machine", "a30", "--seed", "n", "--folder", str(tmp_path / "node")]
    both = [
        subprocess.Popen([sys.executable, "-m", "dra_driver.cli.main", *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("gpus.json made" in text for text in said) == [False, True]


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dra_driver.cli.machine import app\n"
        "heavy = {'grpc', 'celpy', 'kubernetes', 'rich.table', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_machine_may_run_another_driver_from_the_start(tmp_path: Path) -> None:
    assert create(tmp_path, "h200", "node-1", "--driver", "615.71.09").exit_code == 0
    smi = subprocess.run([tmp_path / "host/usr/bin/nvidia-smi"], capture_output=True, text=True, check=True)
    assert "615.71.09" in smi.stdout
    assert "CUDA Version: 13.4" in smi.stdout
    assert "kept as it was, 0 files" in create(tmp_path, "h200", "node-1", "--driver", "615.71.09").output
    refused = create(tmp_path / "other", "h200", "node-1", "--driver", "newest")
    assert refused.exit_code == 1
    assert "gpu-dra machine create: a driver version looks like 580.105.08" in refused.output


# -- driver -----------------------------------------------------------------------------------------------------------


def replace(folder: Path, libraries: str, module: str) -> Result:
    options = ["--folder", str(folder), "--libraries", libraries, "--module", module]
    return runner.invoke(app, ["driver", *options])


def test_a_nodes_driver_is_replaced_and_stays_so_when_the_node_is_made_again(tmp_path: Path) -> None:
    create(tmp_path)
    result = replace(tmp_path, "590.44.01", "590.44.01")
    assert result.exit_code == 0
    assert "driver libraries: 590.44.01; kernel module: 590.44.01; " in result.output
    create(tmp_path)
    host = tmp_path / "host"
    libraries = sorted(path.name for path in host.rglob("libnvidia-ml.so.*"))
    assert libraries == ["libnvidia-ml.so.1", "libnvidia-ml.so.590.44.01"]
    assert (host / "sys/module/nvidia/version").read_text() == "590.44.01\n"
    smi = subprocess.run([host / "usr/bin/nvidia-smi", "--version"], capture_output=True, text=True, check=True)
    assert "DRIVER version      : 590.44.01" in smi.stdout


def test_a_driver_may_be_taken_away_in_parts(tmp_path: Path) -> None:
    create(tmp_path)
    assert "driver libraries: none; kernel module: none loaded; " in replace(tmp_path, "none", "none").output
    host = tmp_path / "host"
    assert not list(host.rglob("libnvidia-ml.so.*"))
    assert not (host / "proc/driver/nvidia/version").exists()
    assert not (host / "sys/module/nvidia/version").exists()
    smi = subprocess.run([host / "usr/bin/nvidia-smi"], capture_output=True, text=True, check=False)
    assert smi.returncode == 9
    assert replace(tmp_path, "590.44.01", "590.44.01").exit_code == 0
    assert (host / "proc/driver/nvidia/version").exists()


def test_what_is_no_version_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    result = replace(tmp_path, "newest", "590.44.01")
    assert result.exit_code == 1
    assert "gpu-dra machine driver: a driver version looks like 580.105.08" in result.output


@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_where_no_node_is_it_is_said_how_to_make_one(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    missing = replace(tmp_path / folder, "590.44.01", "590.44.01")
    assert missing.exit_code == 1
    assert "gpus.json: No such file or directory (create it first, with gpu-dra machine create)" in missing.output
    assert not list((tmp_path / "empty").iterdir())


# -- cgroups ----------------------------------------------------------------------------------------------------------


def test_a_node_may_limit_memory_in_other_cgroups_than_the_kernels(tmp_path: Path) -> None:
    create(tmp_path / "node")
    (tmp_path / "memory").mkdir()
    options = ["--folder", str(tmp_path / "node"), "--root", str(tmp_path / "memory"), "--stands-in", "memory"]
    result = runner.invoke(app, ["cgroups", *options])
    assert (result.exit_code, result.output) == (0, f"memory is limited in the cgroups of {tmp_path / 'memory'}\n")
    hierarchy = StateFile(tmp_path / "node/gpus.json").read().hierarchy
    assert (hierarchy.root, hierarchy.stands_in) == (tmp_path / "memory", "memory")
    create(tmp_path / "node")
    assert StateFile(tmp_path / "node/gpus.json").read().hierarchy == hierarchy
    wrong = runner.invoke(app, ["cgroups", *options[:4]])
    assert "seen from here, cgroup v2 is not mounted at" in wrong.output
    missing = runner.invoke(app, ["cgroups", "--folder", str(tmp_path), "--root", "/"])
    assert missing.exit_code == 1
    assert "gpus.json: No such file or directory" in missing.output
