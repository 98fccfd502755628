"""The edits of a node: both forms, device nodes, and when the answer is found anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dra_driver.cdi import file_states
from dra_driver.cdi.device_nodes import FoundNode
from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.forms import for_gpu
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import Device, DeviceNode, Spec, minimum_version
from dra_driver.errors import HardwareError, HardwareUnavailable
from tests.cdi.driver_root import CONTROL_NUMBERS, VERSION, add_devices, add_file, add_link, gpu_numbers, small_root
from tests.cdi.test_conformance import gpu

HOOK = "/usr/bin/nvidia-cdi-hook"


def driver_edits(root: Path, *hooks: str, host: str = "/") -> DriverEdits:
    """``hooks``: places below ``root``."""
    roots = DriverRoots(Root(root, host), fallback_dev=Root(root / "elsewhere", "/"), sysfs=root / "sys")
    return DriverEdits(roots, [HookPlace(Root(root, host), path) for path in hooks], architecture="x86_64")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made just now count as settled."""
    monkeypatch.setattr(file_states, "_SETTLED_NS", -1)


def test_hook_free_needs_no_links_and_no_ldconfig(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_file(tmp_path, f"/usr/lib64/libnvidia-allocator.so.{VERSION}")
    common = driver_edits(tmp_path, HOOK).common(VERSION)
    assert common.hooks == ()
    assert common.env == ("NVIDIA_CTK_LIBCUDA_DIR=/usr/lib64", "NVIDIA_VISIBLE_DEVICES=void")
    mounts = {mount.container_path: mount.host_path for mount in common.mounts}
    for folder in ("/usr/lib64", "/usr/lib/x86_64-linux-gnu"):
        for name in (f"libcuda.so.{VERSION}", "libcuda.so.1", "libcuda.so"):
            assert mounts[f"{folder}/{name}"] == f"/usr/lib64/libcuda.so.{VERSION}"
        assert mounts[f"{folder}/libnvidia-ml.so.1"] == f"/usr/lib64/libnvidia-ml.so.{VERSION}"
        assert mounts[f"{folder}/gbm/nvidia-drm_gbm.so"] == f"/usr/lib64/libnvidia-allocator.so.{VERSION}"
    assert mounts["/usr/bin/nvidia-smi"] == "/usr/bin/nvidia-smi"
    assert len(mounts) == len(common.mounts)
    assert all(mount.options == ("ro", "nosuid", "nodev", "rbind", "rprivate") for mount in common.mounts)


def test_hook_free_from_a_debian_driver_folder(tmp_path: Path) -> None:
    folder = "/usr/lib/x86_64-linux-gnu/nvidia/current"
    common = driver_edits(small_root(tmp_path, folder=folder)).common(VERSION)
    paths = {mount.container_path for mount in common.mounts}
    assert {"/usr/lib64/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"} <= paths
    assert "NVIDIA_CTK_LIBCUDA_DIR=/usr/lib64" in common.env


def test_a_hook_that_cannot_be_used_keeps_every_prepare_from_going_on(tmp_path: Path) -> None:
    """A file without hooks would work by chance only: the node is meant to have them."""
    small_root(tmp_path)
    hook = add_file(tmp_path, HOOK)
    edits = driver_edits(tmp_path, HOOK)
    with pytest.raises(HardwareError, match=r"/usr/bin/nvidia-cdi-hook .* is not executable"):
        edits.common(VERSION)
    with pytest.raises(HardwareError, match=r"/usr/bin/nvidia-cdi-hook .* is not executable"):
        edits.gpu(gpu(0))
    hook.chmod(0o755)
    assert {hook.path for hook in edits.common(VERSION).hooks} == {HOOK}


@pytest.mark.usefixtures("settled")
def test_another_toolkit_is_seen_at_the_next_prepare(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_file(tmp_path, HOOK, b"create-symlinks", executable=True)
    edits = driver_edits(tmp_path, HOOK)
    four = edits.common(VERSION)
    assert "update-application-profile" not in {hook.args[1] for hook in four.hooks}
    assert edits.common(VERSION) is four
    add_file(tmp_path, HOOK, b"create-symlinks\0update-application-profile\0", executable=True)
    five = edits.common(VERSION)
    assert five.hooks[:-1] == four.hooks
    assert five.hooks[-1].args == ("nvidia-cdi-hook", "update-application-profile")
    assert five.hooks[-1].name == "createContainer"


def test_libraries_in_a_folder_that_only_nvml_knows(tmp_path: Path) -> None:
    """Loaded by LD_LIBRARY_PATH or by a linker's cache: where NVML came from, the rest of the driver is."""
    small_root(tmp_path, folder="/opt/odd/lib")
    roots = DriverRoots(Root(tmp_path), sysfs=tmp_path / "sys")
    with pytest.raises(HardwareUnavailable, match="no NVIDIA driver libraries"):
        DriverEdits(roots).common(VERSION)
    loaded = tmp_path / f"opt/odd/lib/libnvidia-ml.so.{VERSION}"
    sources = {mount.host_path for mount in DriverEdits(roots, loaded_library=lambda: loaded).common(VERSION).mounts}
    assert f"/opt/odd/lib/libcuda.so.{VERSION}" in sources
    elsewhere = DriverEdits(roots, loaded_library=lambda: Path("/usr/lib/libnvidia-ml.so.1"))
    with pytest.raises(HardwareUnavailable, match="no NVIDIA driver libraries"):
        elsewhere.common(VERSION)


def test_sockets_are_mounted_writable(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_file(tmp_path, "/run/nvidia-fabricmanager/socket")
    (mount,) = (m for m in driver_edits(tmp_path, host="/drv").common(VERSION).mounts if "fabric" in m.container_path)
    assert (mount.host_path, mount.container_path) == (
        "/drv/run/nvidia-fabricmanager/socket",
        "/run/nvidia-fabricmanager/socket",
    )
    assert mount.options == ("nosuid", "nodev", "rbind", "rprivate", "noexec")


def test_the_hosts_mps_pipe_is_never_mounted(tmp_path: Path) -> None:
    """A folder that a daemon left behind; CUDA would look for the daemon there."""
    small_root(tmp_path)
    add_file(tmp_path, "/tmp/nvidia-mps/control")
    mounts = driver_edits(tmp_path, host="/drv").common(VERSION).mounts
    assert [mount for mount in mounts if "nvidia-mps" in mount.container_path + mount.host_path] == []


def test_gpu_node_and_number(tmp_path: Path) -> None:
    small_root(tmp_path, gpus=2)
    edits = driver_edits(tmp_path, host="/drv")
    assert edits.gpu(gpu(1)).device_nodes == (
        DeviceNode("/dev/nvidia1", "/drv/dev/nvidia1", "c", 195, 1, 0o666, "rwm"),
    )
    with pytest.raises(HardwareError, match=r"/dev/nvidia2 of GPU GPU-2 not found under /drv") as caught:
        edits.gpu(gpu(2))
    assert caught.value.retryable


def test_device_nodes_behind_absolute_links(tmp_path: Path) -> None:
    small_root(tmp_path / "host", gpus=1)
    (tmp_path / "host/dev").rename(tmp_path / "host/real-dev")
    add_link(tmp_path / "host", "/dev", "/real-dev")
    assert [node.minor for node in driver_edits(tmp_path / "host").gpu(gpu(0)).device_nodes] == [0]


@pytest.mark.usefixtures("settled")
def test_a_change_behind_an_absolute_link_is_seen(tmp_path: Path) -> None:
    small_root(tmp_path, folder="/opt/driver/lib")
    add_link(tmp_path, "/usr/lib64", "/opt/driver/lib")
    edits = driver_edits(tmp_path)
    first = edits.common(VERSION)
    assert edits.common(VERSION) is first
    add_file(tmp_path, f"/opt/driver/lib/libnvcuvid.so.{VERSION}")
    assert f"/usr/lib64/libnvcuvid.so.{VERSION}" in {mount.container_path for mount in edits.common(VERSION).mounts}


def test_a_plain_file_is_no_device_unless_the_table_says_so(tmp_path: Path) -> None:
    add_file(tmp_path, "/dev/nvidia0")
    with pytest.raises(HardwareError, match="not a character device"):
        driver_edits(tmp_path).gpu(gpu(0))
    add_file(tmp_path, "/dev/.simulated-devices.json", b'{"nvidia1": [195, 1]}')
    with pytest.raises(HardwareError, match="no device number for nvidia0"):
        driver_edits(tmp_path).gpu(gpu(0))


def test_a_missing_control_node_is_a_retryable_error(tmp_path: Path) -> None:
    small_root(tmp_path)
    (tmp_path / "dev/nvidia-uvm").unlink()
    with pytest.raises(HardwareError, match="/dev/nvidia-uvm not found") as caught:
        driver_edits(tmp_path).common(VERSION)
    assert caught.value.retryable
    assert "nvidia-modprobe" in caught.value.hint


def test_dev_of_the_host_when_the_driver_root_has_none(tmp_path: Path) -> None:
    small_root(tmp_path)
    (tmp_path / "dev").rename(tmp_path / "moved")
    add_devices(tmp_path / "elsewhere", {"nvidiactl": (195, 255), "nvidia-uvm": (510, 0), **gpu_numbers([0])})
    edits = driver_edits(tmp_path, host="/home/kubernetes/bin/nvidia")
    assert [node.host_path for node in edits.common(VERSION).device_nodes] == ["/dev/nvidia-uvm", "/dev/nvidiactl"]
    assert edits.common(VERSION).mounts[0].host_path == "/home/kubernetes/bin/nvidia/usr/bin/nvidia-smi"


def test_drm_nodes_and_their_links(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_devices(tmp_path, {**gpu_numbers([0]), "dri/card1": (226, 1), "dri/renderD129": (226, 129)})
    for name in ("card1", "renderD129", "other"):
        (tmp_path / "sys/bus/pci/devices/0000:00:00.0/drm" / name).mkdir(parents=True)
    paths = [node.path for node in driver_edits(tmp_path).gpu(gpu(0)).device_nodes]
    assert paths == ["/dev/nvidia0", "/dev/dri/card1", "/dev/dri/renderD129"]
    add_file(tmp_path, "/hook", executable=True)
    assert driver_edits(tmp_path, "/hook").gpu(gpu(0)).hooks[0].args[2:] == (
        "--link",
        "../card1::/dev/dri/by-path/pci-0000:00:00.0-card",
        "--link",
        "../renderD129::/dev/dri/by-path/pci-0000:00:00.0-render",
    )


def test_a_node_for_a_group_adds_the_group() -> None:
    nodes = [FoundNode(DeviceNode("/dev/nvidia0")), FoundNode(DeviceNode("/dev/dri/card0"), group=44)]
    edits = for_gpu(gpu(0), nodes, None)
    assert edits.additional_gids == (44,)
    assert minimum_version(Spec("v/c", (Device("d", edits),))) == "0.7.0"


@pytest.mark.usefixtures("settled")
def test_the_answer_is_remembered_until_something_changes(tmp_path: Path) -> None:
    small_root(tmp_path)
    edits = driver_edits(tmp_path, HOOK)
    first = edits.common(VERSION)
    assert edits.common(VERSION) is first

    def mounted(inner: str) -> bool:
        return inner in {mount.container_path for mount in edits.common(VERSION).mounts}

    add_file(tmp_path, f"/usr/lib64/libnvcuvid.so.{VERSION}")
    assert mounted(f"/usr/lib64/libnvcuvid.so.{VERSION}")
    add_file(tmp_path, "/etc/OpenCL/vendors/nvidia.icd")
    assert mounted("/etc/OpenCL/vendors/nvidia.icd")
    add_link(tmp_path, "/usr/lib64/libnvcuvid.so.1", f"libnvcuvid.so.{VERSION}")
    assert mounted("/usr/lib64/libnvcuvid.so.1")
    add_devices(tmp_path, {**CONTROL_NUMBERS, "nvidia-modeset": (195, 254), "nvidia-uvm": (511, 0)})
    nodes = {node.path: node.major for node in edits.common(VERSION).device_nodes}
    assert nodes["/dev/nvidia-modeset"] == 195
    assert nodes["/dev/nvidia-uvm"] == 511
    add_file(tmp_path, HOOK, executable=True)
    assert edits.common(VERSION).hooks
    assert edits.common(VERSION) is edits.common(VERSION)


@pytest.mark.usefixtures("settled")
def test_the_content_of_a_program_is_not_the_answers_business(tmp_path: Path) -> None:
    """It is mounted by its path; a library's content is, since it says the SONAME."""
    root = small_root(tmp_path)
    program = add_file(tmp_path, "/usr/bin/nvidia-smi", executable=True)
    edits = driver_edits(root)
    first = edits.common(VERSION)
    program.write_text("another content")
    assert edits.common(VERSION) is first
    (tmp_path / f"usr/lib64/libcuda.so.{VERSION}").touch()
    assert edits.common(VERSION) is not first


@pytest.mark.usefixtures("settled")
def test_a_driver_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    root = small_root(tmp_path / "root")
    edits = driver_edits(root)
    first = edits.common(VERSION)
    os.rename(root, tmp_path / "gone")
    with pytest.raises(HardwareUnavailable):
        edits.common(VERSION)
    os.rename(tmp_path / "gone", root)
    assert edits.common(VERSION) == first


def test_what_changed_just_now_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_states, "_SETTLED_NS", 10**12)
    edits = driver_edits(small_root(tmp_path))
    assert edits.common(VERSION) is not edits.common(VERSION)
