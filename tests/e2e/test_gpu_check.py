"""``make gpu-check`` on simulated machines, which stand where the hardware is: it finds nothing where nothing differs,
everything where something does, and makes no call that changes a GPU."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from dataclasses import fields, replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from dra_driver.cdi.driver_files import find_driver_files
from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.roots import Root
from dra_driver.cdi.spec import ContainerEdits, DeviceNode, Hook, Mount
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.hardware.nvml import NvmlCallError, binding
from dra_driver.simulation.hardware import MachineDescription, StateFile, create_state, faults, load_machine, uninstall
from dra_driver.simulation.hardware.description import (
    ComputeInstanceDescription,
    MigDescription,
    MigInstanceDescription,
)
from e2e.gpu_check import files, read_only, report
from e2e.gpu_check.__main__ import main
from e2e.gpu_check.checks import CHECKS, Check
from e2e.gpu_check.facts import Difference, Facts, NotHere, compare, flat, shortened
from e2e.gpu_check.read_only import ReadOnlyLibrary, reads_only
from e2e.gpu_check.runner import Limits, Outcome, Result, Runner
from e2e.gpu_check.side import Side, real_side
from tests.kubelet_plugin.prepare.simulated_node import first_gpus
from tests.long_runs import LONG, stride
from tests.simulated_node import Node, NodeMaker, make_node, no_library

__all__ = ["make_node", "no_library"]

ROOT = Path(__file__).resolve().parents[2]
_CHANGES = re.compile(r"Set(?!Create|Wait|Free)[A-Z]|(?<!EventSet)Create|Destroy|Reset|Clear|Attach|Remove|Modify")


def some_gpus(machine: str, count: int) -> MachineDescription:
    """Not all, but in a long run: nvidia-smi is started for each of them, on both sides."""
    return load_machine(machine) if LONG else first_gpus(machine, count)


def h100_with_mig() -> MachineDescription:
    """MIG on at the first two GPUs: one divided, with parts of an instance and one without any, one empty."""
    description = some_gpus("h100-sxm5-80gb", 2)
    parts = tuple(ComputeInstanceDescription(start=start, slices=1) for start in (0, 1))
    divided = MigDescription(
        enabled=True,
        instances=(
            MigInstanceDescription(profile=19, start=6),
            MigInstanceDescription(profile=19, start=5, compute_instances=()),
            MigInstanceDescription(profile=9, start=0, compute_instances=parts),
        ),
    )
    given = (divided, MigDescription(enabled=True))
    gpus = description.hardware.gpus
    changed = tuple(gpu.model_copy(update={"mig": mig}) for gpu, mig in zip(gpus, given, strict=False))
    hardware = description.hardware.model_copy(update={"gpus": (*changed, *gpus[2:])})
    return description.model_copy(update={"hardware": hardware})


MACHINES = {
    "t4": some_gpus("t4", 1),
    "l40s": some_gpus("l40s", 1),
    "h100 with MIG": h100_with_mig(),
    "a100": some_gpus("a100-sxm4-40gb", 1),
    "gb200": some_gpus("gb200", 1),
    "rtx-pro-6000": some_gpus("rtx-pro-6000", 1),
}


def run_on(node: Node, *arguments: str) -> int:
    return main(["--driver-root", str(node.root), "--host-root", str(node.root), *arguments])


def results_on(node: Node, folder: Path, **changes: Any) -> list[Result]:
    side = changes.pop("side", real_side(node.root, node.root))
    made = Runner(side, folder, **changes)
    made.start()
    return made.results()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "simulation"
    made.mkdir()
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all C functions that were asked for on the hardware, those that are kept away as well."""
    names: set[str] = set()

    def noted(function: str) -> bool:
        names.add(function)
        return reads_only(function)

    monkeypatch.setattr(read_only, "reads_only", noted)
    return names


@pytest.mark.parametrize("name", list(MACHINES)[:: stride(2)])
def test_a_simulated_machine_does_not_differ_from_its_simulation(
    make_node: NodeMaker, name: str, capsys: pytest.CaptureFixture[str], asked: set[str]
) -> None:
    node = make_node(MACHINES[name], start=False)
    before = node.state_file.read_bytes()
    assert run_on(node) == 0
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if re.match(r"[\w -]+?  +ok  ", line)]
    assert len(table) == len(CHECKS), printed
    assert f"{len(CHECKS)} ok" in printed.splitlines()
    state = StateFile(node.state_file).read()
    assert not [gpu for gpu in state.gpus if gpu.uuid in printed or gpu.serial in printed]
    # Nothing that could change a GPU was even tried.
    assert node.state_file.read_bytes() == before
    assert len(asked) > 30
    assert not [function for function in asked if not reads_only(function) or _CHANGES.search(function)]


def test_what_changes_a_gpu_does_not_reach_the_library(make_node: NodeMaker) -> None:
    node = make_node("h100-sxm5-80gb")
    handle = binding.call("nvmlDeviceGetHandleByIndex", 0)
    binding.replace(ReadOnlyLibrary(binding.library()))
    for function, arguments in (
        ("nvmlDeviceSetMigMode", (handle, 1)),
        ("nvmlDeviceSetComputeMode", (handle, 3)),
        ("nvmlDeviceCreateGpuInstance", (handle, 19)),
        ("nvmlDeviceSetPersistenceMode", (handle, 1)),
    ):
        with pytest.raises(NvmlCallError, match="FUNCTION_NOT_FOUND"):
            binding.call(function, *arguments)
    gpu = node.file.read().gpus[0]
    assert (gpu.mig_enabled, gpu.compute_mode, gpu.instances) == (False, 0, ())


@pytest.mark.parametrize(
    ("function", "reads"),
    [
        ("nvmlDeviceGetUUID", True),
        ("nvmlEventSetCreate", True),
        ("nvmlDeviceIsMigDeviceHandle", True),
        ("nvmlComputeInstanceGetInfo_v2", True),
        ("nvmlDeviceClearEccErrorCounts", False),
        ("nvmlGpuInstanceDestroy", False),
        ("nvmlDeviceResetGpuLockedClocks", False),
        ("nvmlSystemSetConfComputeGpusReadyState", False),
        ("nvmlSystemEventSetCreate", False),
    ],
)
def test_what_reads_is_known_by_its_name(function: str, reads: bool) -> None:
    assert reads_only(function) is reads


def test_an_answer_that_the_simulation_does_not_give_is_told_with_both(
    make_node: NodeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    node = make_node(some_gpus("h100-sxm5-80gb", 2), start=False)
    faults.inject_error(node.state_file, "nvmlDeviceGetPowerUsage", 3, gpu=0)
    faults.hide_function(node.state_file, "nvmlDeviceGetGpuInstanceProfileInfo")
    assert run_on(node) == 0, "a difference is no fault"
    printed = capsys.readouterr().out
    assert "GPU 0, power\n    here: NVML_ERROR_NOT_SUPPORTED\n    simulation: NVML_SUCCESS\n" in printed
    assert "GPU 0, GPU instance profile 0, version 1\n    here: NVML_ERROR_FUNCTION_NOT_FOUND\n" in printed
    assert "2 differs" in printed


def test_a_simulation_that_counts_wrong_is_told(
    make_node: NodeMaker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node("t4", start=False)

    def wrong(description: MachineDescription, state_file: Path, *, seed: str) -> Any:
        product = description.hardware.products[0].model_copy(update={"memory_bytes": 1 << 30})
        hardware = description.hardware.model_copy(update={"products": (product,)})
        return create_state(description.model_copy(update={"hardware": hardware}), state_file, seed=seed)

    monkeypatch.setattr("e2e.gpu_check.runner.create_state", wrong)
    checks = [check for check in CHECKS if check.name in ("adapter", "events")]
    found = {result.check: result for result in results_on(node, folder, checks=checks)}
    assert found["adapter"].outcome is Outcome.DIFFERS
    assert Difference("gpus[3].memory_bytes", "16106127360", str(1 << 30)) in found["adapter"].differences
    assert found["events"].outcome is Outcome.OK


def test_a_gpu_that_cannot_be_read_is_told_and_the_rest_is_checked(make_node: NodeMaker, folder: Path) -> None:
    node = make_node("l40s", start=False)
    faults.lose_gpu(node.state_file, 3)
    found = {result.check: result for result in results_on(node, folder)}
    told = [each for each in found["adapter"].differences if each.what == "GPU 3, problem"]
    assert "GPU_IS_LOST" in told[0].here
    assert "ended with 15" in found.pop("nvidia-smi").says, "as the real one does with a lost GPU"
    assert {result.outcome for result in found.values()} == {Outcome.OK, Outcome.DIFFERS}


def test_one_check_that_breaks_and_one_that_hangs_stop_no_other(make_node: NodeMaker, folder: Path) -> None:
    released = threading.Event()

    def breaks(_side: Side) -> Facts:
        raise ZeroDivisionError("an answer nobody thought of")

    def hangs(_side: Side) -> Facts:
        released.wait()
        return {}

    def not_here(_side: Side) -> Facts:
        raise NotHere("there is none of it")

    def fails(_side: Side) -> tuple[Difference, ...]:
        raise HardwareError("the file is gone", hint="look for it")

    checks = [
        Check("breaks", "", breaks),
        Check("hangs", "", hangs),
        Check("not here", "", not_here),
        Check("fails", "", lambda _side: {}, fails),
        *CHECKS[:1],
    ]
    node = make_node("t4", start=False)
    try:
        found = results_on(node, folder, checks=checks, limits=Limits(check=2.0))
    finally:
        released.set()
    assert [(result.outcome, result.says) for result in found] == [
        (Outcome.BROKEN, "ZeroDivisionError: an answer nobody thought of"),
        (Outcome.BROKEN, "no answer within 2 s"),
        (Outcome.NOT_HERE, "there is none of it"),
        (Outcome.BROKEN, "against this machine: the file is gone (look for it)"),
        (Outcome.OK, f"{4 * len(fields(Gpu)) + len(fields(Machine))} the same"),
    ]
    printed = report.render(Machine("580.105.08", 13000), found)
    assert "3 broken" in printed.partition("breaks, broken:")[0]
    assert "in breaks\n" in printed.partition("breaks, broken:")[2], "the trace is at the end"


def test_what_is_left_when_the_time_is_over_is_not_begun(make_node: NodeMaker, folder: Path) -> None:
    node = make_node("t4", start=False)
    asked: list[str] = []

    def takes_all(_side: Side) -> Facts:
        asked.append("first")
        limits_over.wait(3.0)
        return {}

    def never(_side: Side) -> Facts:
        asked.append("second")
        return {}

    limits_over = threading.Event()
    checks = [Check("first", "", takes_all), Check("second", "", never)]
    found = results_on(node, folder, checks=checks, limits=Limits(check=60.0, total=2.0))
    assert asked == ["first"]
    assert found[1].says == "the 2 s of the whole check were over"


def test_a_machine_that_cannot_be_captured_is_checked_without_a_comparison(make_node: NodeMaker, folder: Path) -> None:
    node = make_node("t4", start=False)
    faults.inject_error(node.state_file, "nvmlDeviceGetPowerManagementLimit", 999)
    found = {result.check: result for result in results_on(node, folder)}
    assert found["capture"].outcome is Outcome.BROKEN
    assert found["simulation"].says.startswith("this machine cannot be simulated: nvmlDeviceGetPowerManagementLimit")
    assert found["adapter"].says == "there is no simulation to compare with"


def test_it_needs_what_the_driver_needs_and_no_more() -> None:
    program = "import sys, e2e.gpu_check.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    provided = packages_distributions()
    used = {each.lower().replace("_", "-") for name in done.stdout.split() for each in provided.get(name, ())}
    used -= {"gpu-dra", "setuptools"}  # what every venv starts with
    assert {"pydantic", "nvidia-ml-py"} <= used <= locked


@pytest.mark.usefixtures("no_library")
def test_without_a_driver_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uninstall()
    assert main(["--driver-root", str(tmp_path)]) == 2
    assert f"{tmp_path}/usr/lib64/libnvidia-ml.so.1" in capsys.readouterr().err


def test_a_machine_without_gpus_is_said_so(make_node: NodeMaker, capsys: pytest.CaptureFixture[str]) -> None:
    node = make_node("t4", start=False)
    for index in range(4):
        faults.lose_gpu(node.state_file, index)
    assert run_on(node) == 2
    assert "counts no GPU that can be read" in capsys.readouterr().err


# -- against the node's own files --------------------------------------------------------------------------------------


@pytest.fixture
def side(make_node: NodeMaker) -> Side:
    node = make_node("t4")
    return Side(node.hardware, node.root, node.root)


def test_another_libnvidia_ml_than_the_one_found_is_told(side: Side, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    found = find_driver_files(Root(side.driver_root), side.machine.driver_version)
    own = side.driver_root / next(each.source for each in found.libraries if each.stem == "libnvidia-ml").lstrip("/")
    maps.write_text(f"7f00-7f01 r-xp 00000000 08:01 12 {own}\n")
    assert files.unlike_loaded(replace(side, maps=maps)) == ()
    maps.write_text("7f00-7f01 r-xp 00000000 08:01 12 /opt/old/libnvidia-ml.so.470.1\n")
    told = files.unlike_loaded(replace(side, maps=maps))
    assert [each.here for each in told] == ["/opt/old/libnvidia-ml.so.470.1"]


def test_a_device_number_that_the_kernel_does_not_know_is_told(side: Side) -> None:
    assert files.unlike_node(side) == ()
    devices = side.host_root / "proc/devices"
    devices.write_text(devices.read_text().replace("510 nvidia-uvm", "511 nvidia-uvm"))
    told = files.unlike_node(side)
    assert {(each.what, each.here, each.there) for each in told} == {
        ("/dev/nvidia-uvm, major", "511 in /proc/devices", "510"),
        ("/dev/nvidia-uvm-tools, major", "511 in /proc/devices", "510"),
    }


def test_a_mount_and_a_hook_that_are_not_there_are_told(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ContainerEdits(
        device_nodes=(DeviceNode("/dev/nvidia9", major=195, minor=9),),
        mounts=(Mount("/usr/lib64/libgone.so.1", "/usr/lib64/libgone.so.1"),),
        hooks=(Hook("createContainer", "/usr/bin/no-hook"),),
    )
    monkeypatch.setattr(DriverEdits, "common", lambda _edits, _version: gone)
    told = {each.what: each for each in files.unlike_node(side)}
    assert told["/dev/nvidia9"].here == "No such file or directory"
    assert told["mount /usr/lib64/libgone.so.1"].here == "not there"
    assert told["hook createContainer"].there == "/usr/bin/no-hook"


def test_what_nvidia_smi_says_otherwise_is_told(side: Side) -> None:
    rows = [
        f"{gpu.index}, {gpu.uuid}, {gpu.product_name}, {'0000' + gpu.pci_bus_id.upper()}, "
        f"{(gpu.memory_bytes or 0) >> 20}, 580.105.08, 7.5"
        for gpu in side.machine.gpus
    ]
    listed = [f"GPU {gpu.index}: {gpu.product_name} (UUID: {gpu.uuid})" for gpu in side.machine.gpus]
    smi = side.driver_root / "usr/bin/nvidia-smi"

    def says(listed: list[str], rows: list[str]) -> tuple[Difference, ...]:
        lines = ["#!/bin/sh", 'if [ "$1" = -L ]; then', *(f"echo '{line}'" for line in listed), "else"]
        smi.write_text("\n".join([*lines, *(f"echo '{line}'" for line in rows), "fi", ""]))
        smi.chmod(0o755)
        return files.unlike_smi(side)

    assert says(listed, rows) == ()
    rows[0] = rows[0].replace("15360", "15109")
    told = says(listed[1:], rows)
    uuid = side.machine.gpus[0].uuid
    assert told == (
        Difference("nvidia-smi -L lists", "not listed", uuid, "our driver"),
        Difference("nvidia-smi, GPU 0, memory.total", "15109", "15360", "our driver"),
    )


def test_without_nvidia_smi_that_check_is_not_here(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    (side.driver_root / "usr/bin/nvidia-smi").unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotHere, match="there is no nvidia-smi"):
        files.smi_list(side)


# -- facts and report --------------------------------------------------------------------------------------------------


def test_profiles_are_compared_by_name(make_node: NodeMaker) -> None:
    mig = make_node("h100-sxm5-80gb").hardware.read_machine().gpus[0].mig
    assert mig is not None
    less = replace(mig, profiles=tuple(each for each in mig.profiles if each.name != "2g.20gb"))
    differences = compare(dict(flat(mig)), dict(flat(less)))
    assert Difference("profiles[2g.20gb].memory_mib", "20096", "-") in differences
    assert all(each.what.startswith(("profiles[2g.20gb]", "profiles, count")) for each in differences)


def test_uuids_are_shortened() -> None:
    text = "GPU-12345678-1234-1234-1234-123456789abc and MIG-abcdef01-1234-1234-1234-123456789abc"
    assert shortened(text) == "GPU-1234... and MIG-abcd..."
