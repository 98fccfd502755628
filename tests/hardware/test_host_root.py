"""The simulated node's file tree, device nodes with and without privileges, and its nvidia-smi."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.rooted import resolve_inside
from dra_driver.hardware.simulated import create_state, faults, host_root, smi
from dra_driver.hardware.sysfs import Sysfs
from tests.hardware.conftest import NodeMaker


def build(folder: Path, machine: str = "a100-sxm4-40gb") -> tuple[Path, Path]:
    state_file = folder / "state.json"
    create_state(machine, state_file, seed="n")
    host_root.build(folder / "root", state_file)
    return folder / "root", state_file


def refuse(*_arguments: object, **_keywords: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_device_nodes_without_privileges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "mknod", refuse)
    root, _ = build(tmp_path)
    table = json.loads((root / host_root.SIMULATED_TABLE).read_text())
    assert {path.name for path in (root / "dev").iterdir() if not path.name.startswith(".")} == set(table)
    assert all((root / "dev" / name).is_file() for name in table)
    assert table["nvidia7"] == [195, 7]
    assert table["nvidiactl"] == [195, 255]
    assert table["nvidia-uvm-tools"] == [510, 1]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
def test_device_nodes_with_privileges(tmp_path: Path) -> None:
    root, _ = build(tmp_path, "gb200")
    if not (root / "dev/nvidia0").is_char_device():
        pytest.skip("this machine lets root make no device nodes")
    table = json.loads((root / host_root.SIMULATED_TABLE).read_text())
    for name, (major, minor) in table.items():
        found = (root / "dev" / name).stat()
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (major, minor)
        assert found.st_mode & 0o777 == 0o666
    assert "nvidia3" in table
    assert "nvidia4" not in table


def test_libraries_have_versions_and_links(tmp_path: Path) -> None:
    root, _ = build(tmp_path)
    folder = root / host_root.LIBRARY_FOLDER
    for link in ("libcuda.so", "libcuda.so.1"):
        assert resolve_inside(root, f"/{host_root.LIBRARY_FOLDER}/{link}") == folder / "libcuda.so.580.105.08"
    names = {path.name for path in folder.iterdir()}
    for name in ("libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libnvcuvid.so.1", "libnvidia-nvvm.so.4"):
        assert name in names


def test_proc_and_sysfs(tmp_path: Path) -> None:
    root, state_file = build(tmp_path)
    assert "236 nvidia-caps" in (root / "proc/devices").read_text().splitlines()
    assert "580.105.08" in (root / "proc/driver/nvidia/version").read_text()
    sysfs = Sysfs(root)
    assert sysfs.boot_id() == json.loads(state_file.read_text())["bootId"]
    assert sysfs.pcie_root("0000:b7:00.0") == sysfs.pcie_root("0000:bd:00.0") == "pci0000:b0"
    assert sysfs.numa_node("0000:b7:00.0") == 5


def test_building_again_replaces(tmp_path: Path) -> None:
    root, state_file = build(tmp_path)
    before = sorted(str(path) for path in root.rglob("*"))
    host_root.build(root, state_file)
    assert sorted(str(path) for path in root.rglob("*")) == before


def call_smi(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return smi.main(arguments, out, err), out.getvalue(), err.getvalue()


def test_smi_lists_gpus(make_node: NodeMaker) -> None:
    node = make_node("a30")
    machine = node.hardware.read_machine()
    node.hardware.stop()
    code, out, _ = call_smi(str(node.state_file), "-L")
    assert code == 0
    assert out.splitlines() == [f"GPU {gpu.index}: NVIDIA A30 (UUID: {gpu.uuid})" for gpu in machine.gpus]


def test_smi_tells_versions_and_refuses_the_rest(tmp_path: Path) -> None:
    _, state_file = build(tmp_path)
    code, out, _ = call_smi(str(state_file), "--version")
    assert code == 0
    assert "DRIVER version      : 580.105.08" in out
    assert "CUDA Version        : 13.0" in out
    for options in (("compute-policy", "-l"), (), ("-L", "-x")):
        code, out, err = call_smi(str(state_file), *options)
        assert (code, out) == (2, "")
        assert "cannot do" in err
    assert call_smi()[0] == 2


def test_smi_sees_faults(tmp_path: Path) -> None:
    _, state_file = build(tmp_path)
    faults.lose_gpu(state_file, 1)
    code, out, err = call_smi(str(state_file), "-L")
    assert code == 15
    assert len(out.splitlines()) == 7
    assert "GPU 1" in err
    faults.inject_error(state_file, "nvmlInitWithFlags", Return.DRIVER_NOT_LOADED)
    code, out, err = call_smi(str(state_file), "-L")
    assert (code, out) == (9, "")
    assert "DRIVER_NOT_LOADED" in err
    assert call_smi(str(tmp_path / "nothing"), "-L")[0] == 9


@pytest.mark.process
def test_the_installed_nvidia_smi_runs(tmp_path: Path) -> None:
    root, _ = build(tmp_path, "t4")
    done = subprocess.run([root / "usr/bin/nvidia-smi", "-L"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        f"GPU {index}: Tesla T4" for index in range(4)
    ]
