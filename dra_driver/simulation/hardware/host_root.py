"""The simulated node's file tree: what the driver, the kernel and sysfs would show under the host's root.

Device nodes are real character devices where that is allowed (root, CAP_MKNOD). Elsewhere each is an empty file, and
``<root>/dev/.simulated-devices.json`` says what it stands for, by name below ``dev`` with major and minor:
``{"nvidia0": [195, 0], ...}``. The table is always written; ``cdi.device_nodes`` reads it where it finds a file.

Driver libraries are stubs with the right names, versions and links. Only libnvidia-ml can be loaded, where there is a C
compiler (``nvml_c``) or somebody who has one brought it (``bring_library``): it finds the state by the file
``.simulated-state`` beside it. ``nvidia-smi`` is a script (``smi.script``), and so are MPS's programs with a client for
them (``mps.scripts``); the other programs of the driver only say that they are not simulated. The container
toolkit's hook is there when it is asked for (``toolkit``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dra_driver.simulation.hardware import capabilities
from dra_driver.simulation.hardware.mps import scripts as mps
from dra_driver.simulation.hardware.mps.protocols import speaks_named
from dra_driver.simulation.hardware.pci_files import pci_files
from dra_driver.simulation.hardware.smi.script import SMI_PATH, smi_script
from dra_driver.simulation.hardware.state import SimulatedState
from dra_driver.simulation.hardware.state_file import StateFile
from dra_driver.simulation.hardware.toolkit import HOOK_PATH, Toolkit, hook_script
from dra_driver.simulation.hardware.tree import Tree
from dra_driver.simulation.nvml_c.building import c_library

# Majors as on a usual node: the frontend's is fixed (195), the others are given by the kernel.
FRONTEND_MAJOR = 195
UVM_MAJOR = 510
CAPS_MAJOR = 236
_CONTROL_MINOR = 255  # /dev/nvidiactl
_MODESET_MINOR = 254  # /dev/nvidia-modeset

SIMULATED_TABLE = "dev/.simulated-devices.json"
LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"
_NVML = "libnvidia-ml"
_NVML_STATE = f"{LIBRARY_FOLDER}/.simulated-state"  # the C library reads it

# Libraries of the driver with their SONAME version: lib<name>.so.<driver version>, and a link of that SONAME to it.
_LIBRARIES = {
    "libcuda": "1",
    "libcudadebugger": "1",
    "libnvcuvid": "1",
    "libnvidia-allocator": "1",
    "libnvidia-cfg": "1",
    "libnvidia-eglcore": "",
    "libnvidia-encode": "1",
    "libnvidia-fbc": "1",
    "libnvidia-glcore": "",
    "libnvidia-glsi": "",
    "libnvidia-glvkspirv": "",
    "libnvidia-gpucomp": "",
    "libnvidia-ml": "1",
    "libnvidia-ngx": "1",
    "libnvidia-nvvm": "4",
    "libnvidia-opencl": "1",
    "libnvidia-opticalflow": "1",
    "libnvidia-pkcs11-openssl3": "",
    "libnvidia-ptxjitcompiler": "1",
    "libnvidia-rtcore": "",
    "libnvidia-tls": "",
    "libnvoptix": "1",
}
_DEVELOPER_LINKS = ("libcuda", "libnvcuvid", "libnvidia-encode", "libnvidia-ml", "libnvidia-ptxjitcompiler")

_SILENT_PROGRAMS = (
    "nvidia-debugdump",
    "nvidia-modprobe",
    "nvidia-persistenced",
)


def build(root: Path, state_file: Path, toolkit: Toolkit | None = None) -> int:
    """Make the tree for the machine in ``state_file`` under ``root``; returns how many files it had to change.

    ``toolkit``: the one whose hook is put into the tree. Without one, a hook that somebody put there stays.
    May be repeated at any time, also while containers use the tree: what is right is not touched, what another machine
    left is removed. From now on the tree follows the MIG instances of the state. HardwareUnavailable when the state
    cannot be read, OSError when the tree cannot be written.
    """
    file = StateFile(state_file)
    tree = Tree(root)
    with file.exclusively():  # no MIG instance comes or goes meanwhile
        state = file.read().model_copy(update={"host_tree": os.path.relpath(root, state_file.parent)})
        _build_devices(tree, state)
        _build_libraries(tree, state, state_file)
        _build_programs(tree, state, state_file)
        if toolkit is not None:
            tree.file(HOOK_PATH, hook_script(toolkit), mode=0o755)
        _build_sysfs(tree, state)
        _build_proc(tree, state)
        file.replace(state)
    return tree.changed


def _build_devices(tree: Tree, state: SimulatedState) -> None:
    devices = {
        "nvidiactl": (FRONTEND_MAJOR, _CONTROL_MINOR),
        "nvidia-modeset": (FRONTEND_MAJOR, _MODESET_MINOR),
        "nvidia-uvm": (UVM_MAJOR, 0),
        "nvidia-uvm-tools": (UVM_MAJOR, 1),
    }
    for gpu in state.machine.hardware.gpus:
        devices[f"nvidia{gpu.minor}"] = (FRONTEND_MAJOR, gpu.minor)
    for name, (major, minor) in devices.items():
        tree.device(f"dev/{name}", major, minor)
    tree.file(SIMULATED_TABLE, json.dumps(dict(sorted(devices.items()))) + "\n")
    tree.prune("dev", lambda name: name.startswith("nvidia"))


def _build_libraries(tree: Tree, state: SimulatedState, state_file: Path) -> None:
    version = state.library_version
    folder = Path(os.path.realpath(tree.root / LIBRARY_FOLDER))
    tree.file(_NVML_STATE, os.path.relpath(os.path.realpath(state_file), folder) + "\n")
    for name, soname in _LIBRARIES.items() if version else ():
        library = f"{name}.so.{version}"
        content = _nvml(folder) if name == _NVML else None
        tree.file(f"{LIBRARY_FOLDER}/{library}", content or f"simulated {library}\n")
        if soname:
            tree.link(f"{LIBRARY_FOLDER}/{name}.so.{soname}", library)
        if name in _DEVELOPER_LINKS:
            tree.link(f"{LIBRARY_FOLDER}/{name}.so", f"{name}.so.{soname}")
    tree.prune(LIBRARY_FOLDER, lambda name: name.partition(".so")[0] in _LIBRARIES)


def _nvml(folder: Path) -> bytes | None:
    """The C library; without a compiler one that was put there where there was one, for whichever driver version."""
    if content := c_library().content:
        return content
    return next(filter(None, map(_loadable, sorted(folder.glob(f"{_NVML}.so.*")))), None)


def bring_library(root: Path) -> None:
    """Put the C library into a tree that will be built without a compiler, as in the driver's image.

    Without a compiler here nothing is put there.
    """
    if content := c_library().content:
        Tree(root).file(f"{LIBRARY_FOLDER}/{_NVML}.so.1", content)


def _loadable(library: Path) -> bytes | None:
    try:
        content = library.read_bytes()
    except FileNotFoundError:
        return None
    return content if content.startswith(b"\x7fELF") else None


def no_library(root: Path) -> str:
    """Why no program can load libnvidia-ml from the tree at ``root``; "" when it can."""
    there = _loadable(root / LIBRARY_FOLDER / f"{_NVML}.so.1") is not None
    return "" if there else c_library().problem or "the driver has no libraries now"


def _build_programs(tree: Tree, state: SimulatedState, state_file: Path) -> None:
    tree.file(SMI_PATH, smi_script(state, state_file), mode=0o755)
    named = speaks_named(state.library_version)
    control = mps.control_script(state_file, state.cuda_driver_version, named=named)
    tree.file(mps.CONTROL_PATH, control, mode=0o755)
    tree.file(mps.SERVER_PATH, mps.server_script(), mode=0o755)
    tree.file(mps.CLIENT_PATH, mps.client_script(state_file, named=named), mode=0o755)
    for name in _SILENT_PROGRAMS:
        tree.file(f"usr/bin/{name}", f"#!/bin/sh\necho '{name}: not simulated' >&2\nexit 1\n", mode=0o755)


def _build_sysfs(tree: Tree, state: SimulatedState) -> None:
    for index, gpu in enumerate(state.machine.hardware.gpus):
        # The bridge between root and GPU; a GPU without a known root sits where sysfs has no PCI root.
        above = f"{gpu.pcie_root}/{gpu.pcie_root[3:]}:01.0" if gpu.pcie_root else "virtual"
        folder = f"sys/devices/{above}/{gpu.pci_bus_id}"
        for name, content in pci_files(index, gpu, state.product(index)).items():
            tree.file(f"{folder}/{name}", content)
        tree.link(f"sys/bus/pci/devices/{gpu.pci_bus_id}", f"../../../devices/{above}/{gpu.pci_bus_id}")
    tree.prune("sys/bus/pci/devices")
    tree.prune("sys/devices")


def _build_proc(tree: Tree, state: SimulatedState) -> None:
    tree.file(
        "proc/devices",
        "Character devices:\n"
        f"{FRONTEND_MAJOR} nvidia-frontend\n{CAPS_MAJOR} nvidia-caps\n{UVM_MAJOR} nvidia-uvm\n\n"
        "Block devices:\n",
    )
    if version := state.module_version:
        tree.file("sys/module/nvidia/version", f"{version}\n")
        tree.file("proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}\n")
    for index, gpu in enumerate(state.machine.hardware.gpus):
        tree.file(
            f"proc/driver/nvidia/gpus/{gpu.pci_bus_id}/information",
            f"Model: \t\t {state.product(index).name}\nGPU UUID: \t {state.gpus[index].uuid}\n"
            f"Bus Location: \t {gpu.pci_bus_id}\nDevice Minor: \t {gpu.minor}\n",
        )
        for name, content in capabilities.instance_files(gpu.minor, state.gpus[index]).items():
            tree.file(name, content, mode=capabilities.CAPABILITY_MODE)
    for name, content in capabilities.general_files():
        tree.file(name, content, mode=capabilities.CAPABILITY_MODE)
    tree.file(capabilities.MINORS, capabilities.mig_minors(), mode=capabilities.CAPABILITY_MODE)
    tree.file("proc/sys/kernel/random/boot_id", f"{state.boot_id}\n")
    for folder in ("sys/module/nvidia", "proc/driver/nvidia"):
        tree.prune(folder, lambda name: name == "version")
    tree.prune("proc/driver/nvidia/gpus")
    tree.prune(capabilities.FOLDER)
