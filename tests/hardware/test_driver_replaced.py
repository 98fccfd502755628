"""A driver that is replaced under a process: when only a new process helps, when waiting does, and what is said."""

from __future__ import annotations

import _ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.kernel_module import module_version
from dra_driver.hardware.nvml import DriverReplaced, NvmlCallError, NvmlHardware, VersionMismatch
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.replaced import LibraryFile, explain, library_file
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import faults, host_root, install
from dra_driver.simulation.hardware.driver import replace_driver
from tests.simulated_node import Node, NodeMaker

OLD, NEW = "580.105.08", "590.44.01"
FOLDER = host_root.LIBRARY_FOLDER


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    return make_node("t4", start=False)


def process(node: Node, driver_root: Path | None = None, fresh_root: Path | None = None) -> NvmlHardware:
    """The hardware as a process sees it that starts now."""
    install(node.state_file)
    return NvmlHardware(
        driver_root=driver_root or node.root,
        topology=Sysfs(node.root),
        fresh_root=fresh_root,
        module_version=lambda: module_version(node.root),
    )


def trouble(hardware: NvmlHardware) -> HardwareError | None:
    """As the hardware watch does it: from nothing after a failure."""
    try:
        hardware.start()
        hardware.read()
    except HardwareError as error:
        hardware.stop()
        return error
    return None


def test_a_replaced_driver_needs_a_new_process_which_then_reads_it(node: Node) -> None:
    hardware = process(node)
    assert trouble(hardware) is None
    replace_driver(node.state_file, libraries=NEW, module=NEW)
    for _ in range(2):  # while it reads, and when it begins from nothing
        error = trouble(hardware)
        assert isinstance(error, DriverReplaced)
        assert error.message == (
            f"the NVIDIA driver was replaced: this process has the library of {OLD}, the kernel module is {NEW}, "
            f"and {node.root}/{FOLDER}/libnvidia-ml.so.{NEW} is a new library"
        )
        assert "prepared claims stay" in error.hint
    again = process(node)
    assert trouble(again) is None
    assert again.read().machine.driver_version == NEW
    again.stop()


@pytest.mark.parametrize(
    ("libraries", "module", "said", "hint"),
    [
        (OLD, None, "NVML_ERROR_DRIVER_NOT_LOADED", "wait for the driver's installation to end"),
        (None, None, "NVML_ERROR_DRIVER_NOT_LOADED", "wait for the driver's installation to end"),
        (None, NEW, f"the kernel module is {NEW}, and the library of this process is gone", "wait for the driver's"),
        (OLD, NEW, f"libnvidia-ml.so.{OLD} is {OLD}, the kernel module {NEW}", f"install the libraries of {NEW}"),
        ("600.1", NEW, f"libnvidia-ml.so.600.1 is 600.1, the kernel module {NEW}", "reload the nvidia kernel modules"),
    ],
)
def test_what_is_half_installed_is_waited_for(
    node: Node, libraries: str | None, module: str | None, said: str, hint: str
) -> None:
    hardware = process(node)
    assert trouble(hardware) is None
    replace_driver(node.state_file, libraries=libraries, module=module)
    for _ in range(2):
        error = trouble(hardware)
        assert isinstance(error, HardwareUnavailable)
        assert not isinstance(error, DriverReplaced)
        assert said in error.message
        assert hint in error.hint
    replace_driver(node.state_file, libraries=NEW, module=NEW)
    assert isinstance(trouble(hardware), DriverReplaced)


def test_old_libraries_under_a_module_that_comes_back_need_nothing(node: Node) -> None:
    hardware = process(node)
    assert trouble(hardware) is None
    replace_driver(node.state_file, libraries=OLD, module=None)
    assert trouble(hardware) is not None
    replace_driver(node.state_file, libraries=OLD, module=OLD)
    assert trouble(hardware) is None
    hardware.stop()


def test_a_process_works_on_when_only_the_files_are_new(node: Node) -> None:
    hardware = process(node)
    assert trouble(hardware) is None
    replace_driver(node.state_file, libraries=NEW, module=OLD)
    assert trouble(hardware) is None
    hardware.stop()


def test_a_process_that_starts_before_the_module_is_reloaded_waits_and_needs_no_other(node: Node) -> None:
    """So no process ends in a circle: what a new one would load is what this one has."""
    replace_driver(node.state_file, libraries=NEW, module=OLD)
    hardware = process(node)
    error = trouble(hardware)
    assert isinstance(error, VersionMismatch)
    assert error.message.startswith("nvmlInitWithFlags failed: NVML_ERROR_LIB_RM_VERSION_MISMATCH")
    assert "reload the nvidia kernel modules once nothing uses them, or reboot the node" in error.hint
    replace_driver(node.state_file, libraries=NEW, module=NEW)
    assert trouble(hardware) is None
    hardware.stop()


def test_a_process_that_starts_without_a_library_takes_the_one_that_comes(node: Node) -> None:
    replace_driver(node.state_file, libraries=None, module=NEW)
    hardware = process(node)
    assert isinstance(trouble(hardware), HardwareUnavailable)
    replace_driver(node.state_file, libraries=NEW, module=NEW)
    assert trouble(hardware) is None
    hardware.stop()


def test_gpus_that_are_all_lost_with_their_module_are_a_replaced_driver(node: Node) -> None:
    module = OLD
    install(node.state_file)
    hardware = NvmlHardware(driver_root=node.root, topology=Sysfs(node.root), module_version=lambda: module)
    assert trouble(hardware) is None
    for index in range(4):
        faults.lose_gpu(node.state_file, index)
    assert trouble(hardware) is None, "of the same driver: each GPU is a problem of its own"
    module = NEW
    link = node.root / FOLDER / "libnvidia-ml.so.1"
    (link.parent / f"libnvidia-ml.so.{NEW}").touch()
    link.unlink()
    link.symlink_to(f"libnvidia-ml.so.{NEW}")
    assert isinstance(trouble(hardware), DriverReplaced)


def test_a_driver_that_is_mounted_anew_is_found_past_our_mount_of_the_old_one(node: Node, tmp_path: Path) -> None:
    """The GPU Operator mounts /run/nvidia/driver again; a container goes on seeing what was there when it started."""
    stale = tmp_path / "stale"
    host_root.build(stale, node.state_file)
    host_root.build(node.root, node.state_file)
    hardware = process(node, stale, node.root)
    assert trouble(hardware) is None
    replace_driver(node.state_file, libraries=NEW, module=NEW)
    error = trouble(hardware)
    assert isinstance(error, DriverReplaced)
    assert f"{node.root}/{FOLDER}/libnvidia-ml.so.{NEW} is a new library" in error.message
    assert not isinstance(trouble(process(node, stale)), DriverReplaced), "there a new process would have no other"


_REAL = """
import sys
from pathlib import Path
from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml import NvmlHardware

root, old, new = Path(sys.argv[1]), "580.105.08", "590.44.01"
hardware = NvmlHardware(driver_root=root, module_version=lambda: module)
for module, library in (old, old), (new, old), (new, new):
    folder = root / "usr/lib64"
    for path in folder.iterdir():
        if path.name.startswith("libnvidia-ml.so"):
            path.unlink()
    (folder / f"libnvidia-ml.so.{library}").write_bytes((folder / "some.so").read_bytes())
    (folder / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{library}")
    try:
        hardware.start()
    except HardwareError as error:
        print(type(error).__name__, error)
"""


def test_a_library_that_is_really_mapped_is_known_by_its_file(tmp_path: Path) -> None:
    """With any library in the place of NVML's, which has none of its functions: in a process of its own, mapped for good."""
    folder = tmp_path / "usr/lib64"
    folder.mkdir(parents=True)
    (folder / "some.so").write_bytes(Path(_ctypes.__file__).read_bytes())
    done = subprocess.run([sys.executable, "-c", _REAL, tmp_path], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert first == second
    assert "NVML_ERROR_FUNCTION_NOT_FOUND" in first
    assert third.startswith(f"DriverReplaced the NVIDIA driver was replaced: this process has the library of {OLD}, ")
    assert f"{folder}/libnvidia-ml.so.{NEW} is a new library" in third


# -- the decision alone -----------------------------------------------------------------------------------------------


def file(version: str, inode: int = 1) -> LibraryFile:
    return LibraryFile(Path(f"/lib/libnvidia-ml.so.{version or '1'}"), (8, inode), version)


MISMATCH = VersionMismatch("nvmlInitWithFlags failed")
UNKNOWN = NvmlCallError("nvmlDeviceGetCount", "", Return.UNKNOWN)


def test_other_codes_of_a_module_that_was_taken_away_count_when_both_versions_are_known() -> None:
    assert isinstance(explain(UNKNOWN, file(OLD), [file(NEW, 2)], NEW), DriverReplaced)
    assert explain(UNKNOWN, file(OLD), [file(NEW, 2)], OLD) is UNKNOWN
    assert explain(UNKNOWN, file(OLD), [file(NEW, 2)], None) is UNKNOWN
    assert explain(UNKNOWN, file(""), [file(NEW, 2)], NEW) is UNKNOWN


def test_without_versions_another_file_is_enough_after_a_mismatch_and_the_same_one_is_not() -> None:
    assert isinstance(explain(MISMATCH, file(""), [file("", 2)], NEW), DriverReplaced)
    assert isinstance(explain(MISMATCH, file(OLD), [file(NEW, 2)], None), DriverReplaced)
    assert explain(MISMATCH, file(""), [file("")], NEW) is MISMATCH
    assert explain(MISMATCH, file(OLD), [file(OLD)], None) is MISMATCH
    assert explain(MISMATCH, None, [file(NEW)], NEW) is MISMATCH


def test_a_library_file_is_known_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / f"libnvidia-ml.so.{OLD}"
    assert library_file(path) is None
    assert library_file(None) is None
    path.touch()
    found = library_file(path)
    assert found is not None
    assert found.version == OLD
    assert found.identity == (path.stat().st_dev, path.stat().st_ino)
