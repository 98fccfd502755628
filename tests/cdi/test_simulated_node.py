"""The whole way on a simulated node: its driver root, our file, and what a container made from it sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import Device, Spec
from dra_driver.cdi.store import CdiStore
from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.state_file import create_state
from dra_driver.simulation.runtime.cdi import scan
from dra_driver.simulation.runtime.runtime import ContainerRequest, inject
from tests.cdi.test_conformance import gpu


def no_mknod(path: object, mode: int = 0, device: int = 0) -> None:
    raise PermissionError


@pytest.mark.parametrize("with_mknod", [True, False])
def test_a_container_gets_the_gpu(with_mknod: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_mknod:
        monkeypatch.setattr(os, "mknod", no_mknod)
    version = create_state("a100-sxm4-80gb", tmp_path / "state.json").machine.hardware.driver_version
    root = tmp_path / "root"
    host_root.build(root, tmp_path / "state.json")
    edits = DriverEdits(DriverRoots(Root(root, str(root)), sysfs=root / "sys"), architecture="x86_64")
    store = CdiStore(tmp_path / "cdi")
    device = Device(store.names.device_name("u1", "gpu-3"), edits.gpu(gpu(3)))
    store.write("u1", Spec(store.names.kind, (device,), edits.common(version)))

    index = scan([store.root])
    assert not index.errors
    view = inject(
        ContainerRequest(
            "default", "pod", "p1", "main", {"LD_LIBRARY_PATH": "/mine"}, (store.names.device_id("u1", "gpu-3"),)
        ),
        index,
    )
    numbers = {node.path: (node.type, node.major, node.minor) for node in view.device_nodes}
    assert numbers == {
        "/dev/nvidia-modeset": ("c", 195, 254),
        "/dev/nvidia-uvm": ("c", 510, 0),
        "/dev/nvidia-uvm-tools": ("c", 510, 1),
        "/dev/nvidia3": ("c", 195, 3),
        "/dev/nvidiactl": ("c", 195, 255),
    }
    assert {rule.access for rule in view.device_rules} == {"rwm"}
    assert view.env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert view.env["LD_LIBRARY_PATH"] == "/mine"
    mounts = {mount.container_path for mount in view.mounts}
    for folder in ("/usr/lib64", "/usr/lib/x86_64-linux-gnu"):
        assert {f"{folder}/libcuda.so.1", f"{folder}/libcuda.so.{version}", f"{folder}/libnvidia-ml.so.1"} <= mounts
    assert "/usr/bin/nvidia-smi" in mounts
