"""Finding the driver's files: under any root, with links as they are there, and with a reason when there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dra_driver.cdi.driver_files import find_driver_files
from dra_driver.cdi.roots import Root
from dra_driver.errors import HardwareUnavailable
from tests.cdi.driver_root import VERSION, add_file, add_link, small_root


def test_libraries_links_and_binaries(tmp_path: Path) -> None:
    small_root(tmp_path)
    files = find_driver_files(Root(tmp_path), VERSION)
    assert files.library_folder == "/usr/lib64"
    assert [library.path for library in files.libraries] == [
        f"/usr/lib64/libcuda.so.{VERSION}",
        f"/usr/lib64/libnvidia-ml.so.{VERSION}",
    ]
    assert files.libraries[0].links == (("libcuda.so.1", f"libcuda.so.{VERSION}"),)
    assert files.libraries[1].links == (
        ("libnvidia-ml.so.1", f"libnvidia-ml.so.{VERSION}"),
        ("libnvidia-ml.so", "libnvidia-ml.so.1"),
    )
    assert [file.path for file in files.files] == ["/usr/bin/nvidia-smi"]


@pytest.mark.parametrize("folder", ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64"])
def test_other_library_folders(folder: str, tmp_path: Path) -> None:
    files = find_driver_files(Root(small_root(tmp_path, folder=folder)), VERSION)
    assert files.library_folder == folder


def test_only_the_running_versions_libraries(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_file(tmp_path, "/usr/lib64/libcuda.so.470.1.1")
    add_file(tmp_path, "/usr/lib/libcuda.so." + VERSION)  # Red Hat keeps 32-bit libraries there
    add_file(tmp_path, "/usr/lib64/libc.so.6")
    add_file(tmp_path, "/usr/lib64/libnvidia-egl-gbm.so.1.1.0")
    add_file(tmp_path, f"/usr/lib64/vdpau/libvdpau_nvidia.so.{VERSION}")
    names = [library.path for library in find_driver_files(Root(tmp_path), VERSION).libraries]
    assert names == [
        f"/usr/lib64/libcuda.so.{VERSION}",
        "/usr/lib64/libnvidia-egl-gbm.so.1.1.0",
        f"/usr/lib64/libnvidia-ml.so.{VERSION}",
        f"/usr/lib64/vdpau/libvdpau_nvidia.so.{VERSION}",
    ]


def test_data_firmware_and_sockets(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_file(tmp_path, "/usr/share/vulkan/icd.d/nvidia_icd.json")
    add_file(tmp_path, "/etc/OpenCL/vendors/nvidia.icd")
    add_file(tmp_path, f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin")
    add_file(tmp_path, f"/lib/firmware/nvidia/{VERSION}/README")
    add_file(tmp_path, "/run/nvidia-persistenced/socket")
    files = find_driver_files(Root(tmp_path), VERSION)
    assert [(file.path, file.source) for file in files.files] == [
        ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
        ("/etc/OpenCL/vendors/nvidia.icd", "/etc/OpenCL/vendors/nvidia.icd"),
        ("/etc/vulkan/icd.d/nvidia_icd.json", "/usr/share/vulkan/icd.d/nvidia_icd.json"),
        (f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin", f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin"),
    ]
    assert [socket.path for socket in files.sockets] == ["/run/nvidia-persistenced/socket"]


def test_a_library_folder_that_is_an_absolute_link(tmp_path: Path) -> None:
    """As this process would follow it, it leads into our own container."""
    small_root(tmp_path, folder="/opt/driver/lib")
    add_link(tmp_path, "/usr/lib64", "/opt/driver/lib")
    files = find_driver_files(Root(tmp_path), VERSION)
    assert files.library_folder == "/usr/lib64"
    assert [(library.path, library.source) for library in files.libraries] == [
        (f"/usr/lib64/{name}.so.{VERSION}", f"/opt/driver/lib/{name}.so.{VERSION}")
        for name in ("libcuda", "libnvidia-ml")
    ]
    assert files.libraries[0].links == (("libcuda.so.1", f"libcuda.so.{VERSION}"),)


def test_libraries_that_links_lead_out_of_the_root_are_an_error(tmp_path: Path) -> None:
    """NixOS' /run/opengl-driver holds links to /nix/store. Without them, containers would have no library at all."""
    for name in ("libcuda", "libnvidia-ml"):
        add_link(tmp_path, f"/lib/{name}.so.{VERSION}", f"/nix/store/driver/lib/{name}.so.{VERSION}")
    with pytest.raises(
        HardwareUnavailable, match=f"/lib/libcuda.so.{VERSION} and .* lead by links to no file"
    ) as caught:
        find_driver_files(Root(tmp_path, "/run/opengl-driver"), VERSION)
    assert "such as /" in caught.value.hint


def test_a_library_folder_that_is_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    add_link(tmp_path, "/usr/lib64", "lib64")
    with pytest.raises(HardwareUnavailable, match=r"cannot look for driver files in .*/usr/lib64: .*symbolic links"):
        find_driver_files(Root(tmp_path), VERSION)


def test_a_socket_is_mounted_from_where_its_link_leads(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_link(tmp_path, "/run/nvidia-persistenced", "/var/persistenced")
    add_file(tmp_path, "/var/persistenced/socket")
    (socket,) = find_driver_files(Root(tmp_path), VERSION).sockets
    assert (socket.path, socket.source) == ("/run/nvidia-persistenced/socket", "/var/persistenced/socket")


def test_absolute_links_stay_inside_the_root(tmp_path: Path) -> None:
    small_root(tmp_path)
    (tmp_path / "usr/bin/nvidia-smi").unlink()
    add_file(tmp_path, "/usr/lib/nvidia/current/nvidia-smi")
    add_link(tmp_path, "/usr/bin/nvidia-smi", "/etc/alternatives/nvidia-smi")
    add_link(tmp_path, "/etc/alternatives/nvidia-smi", "../../usr/lib/nvidia/current/nvidia-smi")
    (file,) = find_driver_files(Root(tmp_path), VERSION).files
    assert (file.path, file.source) == ("/usr/bin/nvidia-smi", "/usr/lib/nvidia/current/nvidia-smi")


def test_link_loops_and_broken_links_are_left_out(tmp_path: Path) -> None:
    small_root(tmp_path)
    add_link(tmp_path, "/usr/lib64/libcuda.so.2", "libcuda.so.3")
    add_link(tmp_path, "/usr/lib64/libcuda.so.3", "libcuda.so.2")
    add_link(tmp_path, f"/usr/lib64/libnvidia-cfg.so.{VERSION}", "nowhere")
    add_link(tmp_path, "/usr/bin/nvidia-imex", "nvidia-imex")
    files = find_driver_files(Root(tmp_path), VERSION)
    assert files.libraries[0].links == (("libcuda.so.1", f"libcuda.so.{VERSION}"),)
    assert len(files.libraries) == 2
    assert len(files.files) == 1


def test_an_empty_root_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    with pytest.raises(HardwareUnavailable) as caught:
        find_driver_files(Root(tmp_path, "/run/nvidia/driver"), VERSION)
    for word in ("/run/nvidia/driver", str(tmp_path), f"libcuda.so.{VERSION}", "/usr/lib64"):
        assert word in str(caught.value)
    assert caught.value.retryable


def test_another_version_is_named(tmp_path: Path) -> None:
    small_root(tmp_path)
    with pytest.raises(HardwareUnavailable, match=rf"running NVIDIA driver is 580.1.2.*{VERSION} in /usr/lib64"):
        find_driver_files(Root(tmp_path), "580.1.2")


def test_host_paths() -> None:
    assert Root(Path("/x"), "/").host_path("/usr/lib64") == "/usr/lib64"
    assert Root(Path("/x"), "/run/nvidia/driver/").host_path("/usr/lib64") == "/run/nvidia/driver/usr/lib64"


def test_a_folder_that_cannot_be_read_is_an_error_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: Path) -> list[str]:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "listdir", stale)
    with pytest.raises(HardwareUnavailable, match=r"cannot look for driver files in .*/usr/lib64: Stale file handle"):
        find_driver_files(Root(small_root(tmp_path)), VERSION)
