"""The simulated node's file tree, device nodes with and without privileges, and its nvidia-smi."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dra_driver.cdi.mig_capabilities import MigCapabilities, read_mig_capabilities
from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import MigControl, NvmlCallError
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.rooted import resolve_inside
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import StateFile, capabilities, create_state, faults, host_root, load_machine
from dra_driver.simulation.hardware.smi.program import main
from dra_driver.simulation.hardware.smi.script import SMI_PATH, smi_script
from tests.simulated_node import NodeMaker


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


def call_smi(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(arguments, out, err), out.getvalue(), err.getvalue()


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
    code, out, _ = call_smi(str(state_file))
    assert code == 0
    assert out.startswith("NVIDIA-SMI 580.105.08    Driver Version: 580.105.08    CUDA Version: 13.0\nGPU 0: ")
    for options, said in ((("topo", "-m"), "cannot do topo -m"), (("-L", "-x"), "does not know -x")):
        code, out, err = call_smi(str(state_file), *options)
        assert (code, out) == (2, "")
        assert said in err
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


def test_smi_changes_and_lists_mig(tmp_path: Path) -> None:
    root, state_file = build(tmp_path, "h100-sxm5-80gb")
    state, name = StateFile(state_file), str(state_file)
    assert call_smi(name, "mig", "-lgi") == (0, "No GPU instances found: Not Found\n", "")
    assert call_smi(name, "-i", "2", "-mig", "1") == (
        0,
        "Enabled MIG Mode for GPU 00000000:3A:00.0\nAll done.\n",
        "",
    )
    code, out, _ = call_smi(name, "mig", "-i", "2", "-cgi", "9,2g.20gb:0", "-C")
    assert code == 0
    assert out.splitlines() == [
        "Successfully created GPU instance ID  1 on GPU  2 using profile MIG 3g.40gb (ID  9)",
        "Successfully created compute instance ID  0 on GPU  2 GPU instance ID  1 using profile MIG 3g.40gb",
        "Successfully created GPU instance ID  3 on GPU  2 using profile MIG 2g.20gb (ID 14)",
        "Successfully created compute instance ID  0 on GPU  2 GPU instance ID  3 using profile MIG 2g.20gb",
    ]
    devices = [compute.uuid for _, compute in state.read().gpus[2].mig_devices()]
    listing = call_smi(name, "-L")[1].splitlines()
    assert listing[3:5] == [
        f"  MIG 3g.40gb     Device  0: (UUID: {devices[0]})",
        f"  MIG 2g.20gb     Device  1: (UUID: {devices[1]})",
    ]
    assert len(listing) == 10
    rows = call_smi(name, "mig", "-lgi")[1].splitlines()
    assert [line.split() for line in rows[5:7]] == [
        ["|", "2", "MIG", "2g.20gb", "14", "3", "0:2", "|"],
        ["|", "2", "MIG", "3g.40gb", "9", "1", "4:4", "|"],
    ]
    assert ["|", "2", "3", "MIG", "2g.20gb", "0", "0:2", "|"] in [
        line.split() for line in call_smi(name, "mig", "-lci")[1].splitlines()
    ]
    profiles = [line.split() for line in call_smi(name, "mig", "-i", "2", "-lgip")[1].splitlines()]
    assert ["|", "2", "MIG", "1g.10gb", "19", "2/7", "9.75", "No", "16", "1", "0", "|"] in profiles
    assert ["|", "2", "MIG", "3g.40gb", "9", "0/2", "39.50", "No", "60", "3", "0", "|"] in profiles
    assert call_smi(name, "mig", "-i", "2", "-dci", "-gi", "3")[0] == 0
    assert call_smi(name, "mig", "-i", "2", "-dgi", "-gi", "3")[1] == (
        "Successfully destroyed GPU instance ID  3 from GPU  2\n"
    )
    assert [each.id for each in state.read().gpus[2].instances] == [1]
    assert (root / capabilities.FOLDER / "gpu2/mig/gi1/ci0/access").is_file()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("mig", "-i", "0", "-cgi", "19:6"), 23, "INSUFFICIENT_RESOURCES"),
        (("mig", "-i", "0", "-cgi", "9:2"), 2, "INVALID_ARGUMENT"),
        (("mig", "-i", "1", "-cgi", "9"), 3, "NOT_SUPPORTED"),
        (("mig", "-i", "0", "-dgi"), 19, "still has compute instances"),
        (("-i", "0", "-mig", "0"), 19, "IN_USE"),
        (("mig", "-i", "0", "-cgi", "5g.60gb"), 2, "no GPU instance profile 5g.60gb"),
        (("mig", "-i", "0", "-cgi", "9:four"), 2, "needs a number"),
        (("mig", "-i", "9", "-lgi"), 6, "no GPU is named 9"),
        (("mig", "-lgi", "-lci"), 2, "one of"),
        (("mig", "-lgi", "--verbose"), 2, "does not know --verbose"),
        (("mig", "-dgi", "-gi", "one"), 2, "must be a number"),
        (("mig", "-i"), 2, "needs a value"),
        (("-mig", "on"), 2, "takes 0 or 1"),
    ],
)
def test_smi_refuses_as_nvml_does(tmp_path: Path, options: tuple[str, ...], code: int, said: str) -> None:
    _, state_file = build(tmp_path, "h100-sxm5-80gb")
    name = str(state_file)
    assert call_smi(name, "-i", "0", "-mig", "1")[0] == 0
    assert call_smi(name, "mig", "-i", "0", "-cgi", "9", "-C")[0] == 0
    before = StateFile(state_file).read()
    answer = call_smi(name, *options)
    assert answer[0] == code
    assert said in answer[2]
    assert StateFile(state_file).read() == before


def test_smi_tells_of_a_mode_that_waits_for_a_reset_and_of_no_mig(tmp_path: Path) -> None:
    _, state_file = build(tmp_path / "a", "a30")
    code, out, _ = call_smi(str(state_file), "-i", "0", "-mig", "1")
    assert code == 0
    assert out.startswith("Warning: MIG mode is in pending enable state for GPU 00000000:17:00.0:")
    _, state_file = build(tmp_path / "b", "t4")
    assert call_smi(str(state_file), "mig", "-lgip") == (3, "No MIG-supported devices found.\n", "")


@pytest.mark.process
def test_the_installed_nvidia_smi_runs(tmp_path: Path) -> None:
    root, _ = build(tmp_path, "t4")
    done = subprocess.run([root / "usr/bin/nvidia-smi", "-L"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        f"GPU {index}: Tesla T4" for index in range(4)
    ]


def shells() -> list[list[str]]:
    """The shells of this machine that images have."""
    found = [[path] for name in ("sh", "dash") if (path := shutil.which(name))]
    busybox = shutil.which("busybox")
    return found + ([[busybox, "sh"]] if busybox else [])


@pytest.mark.process
@pytest.mark.parametrize("shell", shells(), ids=lambda shell: Path(shell[0]).name)
def test_nvidia_smi_without_python_lists_the_containers_gpus(tmp_path: Path, shell: list[str]) -> None:
    state_file = tmp_path / "state.json"
    state = create_state("h100-sxm5-80gb", state_file, seed="it's")
    dev = tmp_path / "dev of a container"
    dev.mkdir()
    script = tmp_path / "nvidia-smi"
    script.write_text(smi_script(state, state_file, python=Path("/none/python3"), dev=dev))

    def call(*options: str) -> tuple[int, str, str]:
        # As in an image without any program of its own, and with nowhere to write.
        done = subprocess.run([*shell, str(script), *options], capture_output=True, text=True, env={"PATH": "/none"})
        return done.returncode, done.stdout, done.stderr

    assert call("-L") == (6, "No devices were found\n", "")
    for name in ("nvidiactl", "nvidia2", "nvidia7", "nvidia-uvm"):
        (dev / name).touch()
    listing = (
        f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {state.gpus[2].uuid})\n"
        f"GPU 1: NVIDIA H100 80GB HBM3 (UUID: {state.gpus[7].uuid})\n"
    )
    assert call("-L") == call("--list-gpus") == (0, listing, "")
    code, out, _ = call()
    assert code == 0
    assert out == f"NVIDIA-SMI 580.105.08    Driver Version: 580.105.08    CUDA Version: 13.0\n{listing}"
    assert call("--version") == (0, call_smi(str(state_file), "--version")[1], "")
    code, out, err = call("--query-gpu=uuid", "--format=csv")
    assert (code, out) == (2, "")
    assert "--query-gpu=uuid --format=csv: not simulated in a container" in err
    assert call("")[0] == 2


@pytest.mark.process
@pytest.mark.parametrize("shell", shells(), ids=lambda shell: Path(shell[0]).name)
def test_nvidia_smi_in_a_container_lists_its_mig_devices_only(
    make_node: NodeMaker, tmp_path: Path, shell: list[str]
) -> None:
    """Also those that were made after the tree, and in a script that the container has had all the time."""
    node = make_node("rtx-pro-6000")
    dev = tmp_path / "dev"
    (dev / "nvidia-caps").mkdir(parents=True)
    script = node.root / SMI_PATH
    script.write_text(smi_script(node.file.read(), node.state_file, python=Path("/none"), dev=dev))
    control, uuid = MigControl(), node.file.read().gpus[1].uuid
    control.set_mode(uuid, True)
    mine = control.create_gpu_instance(uuid, 64, MigPlacement(6, 6))  # the longest name: 1c.2g.48gb+me.all
    parts = [control.create_compute_instance(uuid, mine, 1) for _ in range(2)]
    other = control.create_gpu_instance(uuid, 67, MigPlacement(0, 3))
    control.create_compute_instance(uuid, other, 1)
    identity = script.stat().st_ino

    def call() -> list[str]:
        return subprocess.run(
            [*shell, str(script), "-L"], capture_output=True, text=True, env={"PATH": "/none"}
        ).stdout.splitlines()

    (dev / "nvidia1").touch()
    gpu = f"GPU 0: NVIDIA RTX PRO 6000 Blackwell Server Edition (UUID: {uuid})"
    assert call() == [gpu]
    found = read_mig_capabilities(node.root, 1, mine, parts[1].id)
    (dev / f"nvidia-caps/nvidia-cap{found.compute_instance_minor}").touch()
    assert call() == [gpu], "the GPU instance's node is missing"
    (dev / f"nvidia-caps/nvidia-cap{found.gpu_instance_minor}").touch()
    assert call() == [gpu, f"  MIG 1c.2g.48gb+me.all Device  0: (UUID: {parts[1].uuid})"]
    for each in parts:
        control.destroy_compute_instance(uuid, mine, each.id)
    whole = control.create_compute_instance(uuid, mine, 2)
    (dev / f"nvidia-caps/nvidia-cap{found.gpu_instance_minor + 1}").touch()
    assert call() == [gpu, f"  MIG 2g.48gb+me.all Device  0: (UUID: {whole.uuid})"]
    assert script.stat().st_ino == identity


@pytest.mark.process
def test_nvidia_smi_does_without_python_where_the_state_or_the_package_is_missing(tmp_path: Path) -> None:
    """An image may have a Python at the very same path."""
    state_file = tmp_path / "state.json"
    state = create_state("t4", state_file, seed="n")
    script = tmp_path / "nvidia-smi"
    script.write_text(smi_script(state, state_file, dev=tmp_path))
    (tmp_path / "nvidia0").touch()
    assert len(subprocess.run(["sh", script, "-L"], capture_output=True, text=True).stdout.splitlines()) == 4
    state_file.unlink()
    assert len(subprocess.run(["sh", script, "-L"], capture_output=True, text=True).stdout.splitlines()) == 1


def test_a_machine_without_gpus_has_a_script_too(tmp_path: Path) -> None:
    machine = load_machine("t4")
    empty = machine.model_copy(update={"hardware": machine.hardware.model_copy(update={"gpus": ()})})
    state = create_state(empty, tmp_path / "state.json")
    done = subprocess.run(
        ["sh", "-c", smi_script(state, tmp_path / "gone", dev=tmp_path), "nvidia-smi", "-L"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (6, "No devices were found\n")
