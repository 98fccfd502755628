"""The simulated node's file tree, device nodes with and without privileges, and its nvidia-smi."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from dra_driver.cdi.mig_capabilities import MigCapabilities, read_mig_capabilities
from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import MigControl, NvmlCallError
from dra_driver.hardware.rooted import resolve_inside
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import capabilities, create_state, host_root
from dra_driver.simulation.hardware.driver import replace_driver
from dra_driver.simulation.hardware.state_file import StateFile
from dra_driver.simulation.nvml_c.building import c_library
from tests.simulated_node import NodeMaker
from tests.simulation.nvml_c.twins import needs_compiler


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


def test_a_gpu_has_its_regions_as_the_kernel_shows_them(tmp_path: Path) -> None:
    root, state_file = build(tmp_path)
    text = resolve_inside(root, "/sys/bus/pci/devices/0000:b7:00.0/resource").read_text()
    regions = [tuple(int(word, 16) for word in line.split()) for line in text.splitlines()]
    sizes = [last - first + 1 if flags else 0 for first, last, flags in regions]
    memory = StateFile(state_file).read().product(0).memory_bytes
    assert memory is not None
    assert len(regions) == 13
    assert (sizes[0], sizes[3]) == (16 << 20, 32 << 20)
    assert memory <= sizes[1] < 2 * memory, "a power of two that holds all of it"


def test_a_gpu_is_a_pci_device_for_who_looks_at_the_bus(tmp_path: Path) -> None:
    root, _ = build(tmp_path, "h100-sxm5-80gb")
    device = root / "sys/bus/pci/devices/0000:18:00.0"
    assert (device / "vendor").read_text() == "0x10de\n"
    assert (device / "class").read_text() == "0x030200\n"
    config = (device / "config").read_bytes()
    vendor, number, _, status, revision_and_class = struct.unpack_from("<HHHHI", config)
    assert (vendor, revision_and_class >> 8) == (0x10DE, 0x030200)
    assert f"{number:#06x}\n" == (device / "device").read_text()
    assert not status, "no list of capabilities, so no vGPU"
    assert len(config) == 256
    ranges = [line.split() for line in (device / "resource").read_text().splitlines()]
    assert {len(line) for line in ranges} == {3}


@needs_compiler
def test_without_a_compiler_the_library_that_was_brought_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = c_library().content
    host_root.bring_library(tmp_path / "root")
    monkeypatch.setenv("PATH", str(tmp_path))
    root, state_file = build(tmp_path)
    place = root / host_root.LIBRARY_FOLDER / "libnvidia-ml.so.1"
    assert place.readlink() == Path("libnvidia-ml.so.580.105.08")
    assert place.read_bytes() == library
    replace_driver(state_file, libraries="615.71.01", module="615.71.01")
    host_root.build(root, state_file)
    assert place.readlink() == Path("libnvidia-ml.so.615.71.01")
    assert place.read_bytes() == library, "of another driver version as well"
    assert not host_root.no_library(root)


def test_without_a_compiler_and_without_a_library_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    host_root.bring_library(tmp_path / "root")
    root, _ = build(tmp_path)
    assert "no C compiler" in host_root.no_library(root)


def test_capabilities_follow_the_instances(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    folder, before = node.root / capabilities.FOLDER, tree(node.root)
    control, uuid = MigControl(), node.file.read().gpus[1].uuid
    control.set_mode(uuid, True)
    assert tree(node.root) == before
    first = control.create_gpu_instance(uuid, 9, MigPlacement(4, 4))
    second = control.create_gpu_instance(uuid, 14, MigPlacement(0, 2))
    made = [control.create_compute_instance(uuid, first, 1) for _ in range(2)]
    access = {path.relative_to(folder).as_posix() for path in folder.rglob("access")}
    assert access == {
        "gpu1/mig/gi1/access",
        "gpu1/mig/gi1/ci0/access",
        "gpu1/mig/gi1/ci1/access",
        "gpu1/mig/gi3/access",
    }
    assert (folder / "gpu1/mig/gi1/ci1/access").read_text() == (
        "DeviceFileMinor: 149\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
    )
    assert read_mig_capabilities(node.root, 1, first, 1) == MigCapabilities(236, 147, 149)
    assert host_root.build(node.root, node.state_file) == 0, "what follows is what a build would make"
    control.destroy_compute_instance(uuid, first, made[0].id)
    assert not (folder / "gpu1/mig/gi1/ci0").exists()
    assert read_mig_capabilities(node.root, 1, first, 0) == MigCapabilities(236, 147, 148), "the table has them all"
    control.destroy_compute_instance(uuid, first, made[1].id)
    control.destroy_gpu_instance(uuid, first)
    control.destroy_gpu_instance(uuid, second)
    assert tree(node.root) - before == {f"{capabilities.FOLDER}/gpu1", f"{capabilities.FOLDER}/gpu1/mig"}
    assert host_root.build(node.root, node.state_file) == 0
    assert tree(node.root) == before


def test_the_table_of_minors_is_the_kernel_modules(tmp_path: Path) -> None:
    """Lines of NVIDIA's MIG user guide, and of the comment in its DRA driver."""
    root, _ = build(tmp_path)
    table = (root / capabilities.MINORS).read_text().splitlines()
    assert table[:4] == ["config 1", "monitor 2", "gpu0/gi0/access 3", "gpu0/gi0/ci0/access 4"]
    assert {"gpu3/gi3/ci3/access 439", "gpu6/gi11/ci5/access 918"} <= set(table)
    assert table[-1] == "gpu31/gi14/ci7/access 4322"


def test_a_tree_that_is_gone_stops_no_change(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    shutil.rmtree(node.root)
    control, uuid = MigControl(), node.file.read().gpus[0].uuid
    control.set_mode(uuid, True)
    control.create_gpu_instance(uuid, 9, MigPlacement(4, 4))
    assert not node.root.exists()


def test_a_tree_that_cannot_be_written_is_an_error_of_the_call(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    control, uuid = MigControl(), node.file.read().gpus[0].uuid
    control.set_mode(uuid, True)
    (node.root / capabilities.FOLDER / "gpu0").touch()  # where a folder must be
    with pytest.raises(NvmlCallError, match="OPERATING_SYSTEM"):
        control.create_gpu_instance(uuid, 9, MigPlacement(4, 4))


def test_a_build_mends_capabilities_that_a_killed_process_left(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    control, uuid = MigControl(), node.file.read().gpus[0].uuid
    control.set_mode(uuid, True)
    before = tree(node.root)
    (node.root / capabilities.FOLDER / "gpu0/mig/gi3").mkdir(parents=True)
    (node.root / capabilities.FOLDER / "gpu0/mig/gi3/access").write_text("stale")
    assert control.create_gpu_instance(uuid, 14, MigPlacement(0, 2)) == 3
    assert read_mig_capabilities(node.root, 0, 3, 0).gpu_instance_minor == 30
    control.destroy_gpu_instance(uuid, 3)
    (node.root / capabilities.FOLDER / "gpu0/mig/gi4").mkdir(parents=True)
    (node.root / capabilities.FOLDER / "gpu0/mig/gi4/access").write_text("stale")
    assert host_root.build(node.root, node.state_file) == 1
    assert tree(node.root) == before


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    found = ((str(path), path.lstat()) for path in root.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path: (each.st_ino, each.st_ctime_ns) for path, each in found}


@pytest.mark.parametrize("privileged", [True, False])
def test_building_again_touches_nothing_that_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, privileged: bool
) -> None:
    if not privileged:
        monkeypatch.setattr(os, "mknod", refuse)
    root, state_file = build(tmp_path)
    before = stamps(root)
    assert host_root.build(root, state_file) == 0
    assert stamps(root) == before


def test_building_again_mends_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    root, state_file = build(tmp_path)
    before = stamps(root)
    (root / "dev/nvidia3").unlink()
    (root / "usr/bin/nvidia-smi").write_text("broken")
    link = root / host_root.LIBRARY_FOLDER / "libcuda.so.1"
    link.unlink()
    link.symlink_to("libcuda.so.1.0")
    (root / "usr/bin/nvidia-cdi-hook").write_text("put here by somebody else")
    assert host_root.build(root, state_file) == 3
    after = stamps(root)
    assert set(after) == {*before, str(root / "usr/bin/nvidia-cdi-hook")}
    changed = {Path(path).name for path in before if after[path] != before[path]}
    assert changed == {"nvidia3", "nvidia-smi", "libcuda.so.1"}
    assert link.readlink() == Path("libcuda.so.580.105.08")


def test_another_machine_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    root, state_file = build(tmp_path / "old")
    fresh, _ = build(tmp_path / "fresh", "gb200")
    create_state("gb200", state_file, seed="n")
    (root / "dev/.nvidia0.0badcafe.tmp").touch()
    host_root.build(root, state_file)
    names = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert names - {"dev/.nvidia0.0badcafe.tmp"} == {str(path.relative_to(fresh)) for path in fresh.rglob("*")}
