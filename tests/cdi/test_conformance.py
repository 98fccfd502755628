"""Our spec against the ones that NVIDIA's driver wrote for the same driver root, field by field.

On real device nodes (making them needs root) our files are theirs byte for byte; on a simulated root a node also has a
type. docs/dev/cdi.md lists the differences that other situations make, with their reasons.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.cdi.decode import decode
from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.encode import encode
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.names import CdiNames
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import Device, DeviceNode, Spec
from dra_driver.hardware.model import Gpu
from tests.cdi.driver_root import VERSION, add_devices, add_file, add_link

RECORDINGS = {
    "h100-full": "/nvbase/drv/h100",
    "h100-rich-root": "/nvbase/drv/h100-rich",
    "h100-admin-all": "/nvbase/drv/h100",
}
HOOK = "/nvbase/bin/nvidia-cdi-hook"
DATA = Path(__file__).parents[1] / "data" / "nvidia-cdi"


def gpu(minor: int) -> Gpu:
    return Gpu(minor, minor, f"GPU-{minor}", "NVIDIA H100", "Nvidia", "Hopper", "9.0", f"0000:{minor:02x}:00.0")


def rebuild(root: Path, recorded: Spec, host_root: str, *, real_nodes: bool) -> None:
    """The recording's driver root, as far as it shows: what is mounted from it, its links and its device nodes."""
    for mount in recorded.edits.mounts:
        add_file(root, mount.host_path.removeprefix(host_root))
    for hook in recorded.edits.hooks:
        for link in (argument for argument in hook.args if "::" in argument):
            target, path = link.split("::")
            if "/gbm/" not in path:
                add_link(root, path, target)
    nodes = [node for edits in (recorded.edits, *(d.edits for d in recorded.devices)) for node in edits.device_nodes]
    numbers = {node.path.removeprefix("/dev/"): (node.major, node.minor) for node in nodes}
    if not real_nodes:
        add_devices(root, numbers)
        return
    (root / "dev").mkdir(parents=True)
    for name, (major, minor) in numbers.items():
        try:
            os.mknod(root / "dev" / name, 0o020666, os.makedev(major, minor))
        except PermissionError:
            pytest.skip("making device nodes needs root")
        (root / "dev" / name).chmod(0o666)


def ours(root: Path, recorded: Spec, host_root: str) -> Spec:
    """Our spec for the claim of the recording."""
    add_file(root, HOOK, executable=True)
    edits = DriverEdits(
        DriverRoots(Root(root, host_root), sysfs=root / "sys"),
        [HookPlace(Root(root), "/no-hook-here"), HookPlace(Root(root), HOOK)],
    )
    names = CdiNames()
    uid, _, _ = recorded.devices[0].name.rpartition("-gpu-")
    minors = [int(device.name.rpartition("-")[2]) for device in recorded.devices]
    devices = tuple(Device(names.device_name(uid, f"gpu-{minor}"), edits.gpu(gpu(minor))) for minor in minors)
    return Spec(names.kind, devices, edits.common(VERSION))


@pytest.mark.root
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_same_bytes_as_nvidias_driver_on_real_nodes(name: str, tmp_path: Path) -> None:
    data = (DATA / f"{name}.yaml").read_bytes()
    recorded = decode(data)
    rebuild(tmp_path, recorded, RECORDINGS[name], real_nodes=True)
    assert encode(ours(tmp_path, recorded, RECORDINGS[name])).decode() == data.decode()


@pytest.mark.parametrize("name", RECORDINGS)
def test_on_a_simulated_root_only_the_node_type_differs(name: str, tmp_path: Path) -> None:
    recorded = decode((DATA / f"{name}.yaml").read_bytes())
    rebuild(tmp_path, recorded, RECORDINGS[name], real_nodes=False)
    found = ours(tmp_path, recorded, RECORDINGS[name])
    assert {node.type for device in found.devices for node in device.edits.device_nodes} == {"c"}
    assert without_types(found) == recorded


def without_types(spec: Spec) -> Spec:
    def plain(nodes: tuple[DeviceNode, ...]) -> tuple[DeviceNode, ...]:
        return tuple(replace(node, type="") for node in nodes)

    devices = tuple(
        replace(device, edits=replace(device.edits, device_nodes=plain(device.edits.device_nodes)))
        for device in spec.devices
    )
    return replace(spec, devices=devices, edits=replace(spec.edits, device_nodes=plain(spec.edits.device_nodes)))
