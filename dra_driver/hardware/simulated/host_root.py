"""The simulated node's file tree: what the driver, the kernel and sysfs would show under the host's root.

Device nodes are real character devices where that is allowed (root, CAP_MKNOD). Elsewhere each is an empty file, and
``<root>/dev/.simulated-devices.json`` says what it stands for, by name below ``dev`` with major and minor:
``{"nvidia0": [195, 0], ...}``. The table is always written; ``cdi.device_nodes`` reads it where it finds a file.

Driver libraries are stubs with the right names, versions and links; ``nvidia-smi`` is a script that runs ``smi`` on the
state file; the other programs of the driver only say that they are not simulated.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from pathlib import Path

from dra_driver.hardware.simulated.state import SimulatedState, StateFile

# Majors as on a usual node: the frontend's is fixed (195), the others are given by the kernel.
FRONTEND_MAJOR = 195
UVM_MAJOR = 510
CAPS_MAJOR = 236
_CONTROL_MINOR = 255  # /dev/nvidiactl
_MODESET_MINOR = 254  # /dev/nvidia-modeset

SIMULATED_TABLE = "dev/.simulated-devices.json"
LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"

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
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-debugdump",
    "nvidia-modprobe",
    "nvidia-persistenced",
)


def build(root: Path, state_file: Path) -> None:
    """Make the tree for the machine in ``state_file`` under ``root``; what is there already is replaced.

    HardwareUnavailable when the state cannot be read, OSError when the tree cannot be written.
    """
    state = StateFile(state_file).read()
    _build_devices(root, state)
    _build_libraries(root, state)
    _build_programs(root, state_file)
    _build_sysfs(root, state)
    _build_proc(root, state)


def _build_devices(root: Path, state: SimulatedState) -> None:
    devices = {
        "nvidiactl": (FRONTEND_MAJOR, _CONTROL_MINOR),
        "nvidia-modeset": (FRONTEND_MAJOR, _MODESET_MINOR),
        "nvidia-uvm": (UVM_MAJOR, 0),
        "nvidia-uvm-tools": (UVM_MAJOR, 1),
    }
    for gpu in state.machine.hardware.gpus:
        devices[f"nvidia{gpu.minor}"] = (FRONTEND_MAJOR, gpu.minor)
    for name, (major, minor) in devices.items():
        _make_device(root / "dev" / name, major, minor)
    _write(root / SIMULATED_TABLE, json.dumps(dict(sorted(devices.items()))) + "\n")


def _make_device(path: Path, major: int, minor: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        path.chmod(0o666)  # mknod applies the umask
    except PermissionError:
        path.touch(mode=0o666)


def _build_libraries(root: Path, state: SimulatedState) -> None:
    version = state.machine.hardware.driver_version
    folder = root / LIBRARY_FOLDER
    for name, soname in _LIBRARIES.items():
        library = folder / f"{name}.so.{version}"
        _write(library, f"simulated {library.name}\n")
        if soname:
            _link(folder / f"{name}.so.{soname}", library.name)
        if name in _DEVELOPER_LINKS:
            _link(folder / f"{name}.so", f"{name}.so.{soname}")


def _build_programs(root: Path, state_file: Path) -> None:
    folder = root / "usr/bin"
    python, state = shlex.quote(sys.executable), shlex.quote(str(state_file.absolute()))
    # Where this very code lies, so that the script works from any folder, from a checkout as from an installation.
    packages = shlex.quote(str(Path(__file__).resolve().parents[3]))
    smi = (
        "#!/bin/sh\n"
        f'PYTHONPATH={packages}"${{PYTHONPATH:+:$PYTHONPATH}}" \\\n'
        f'exec {python} -m dra_driver.hardware.simulated.smi {state} "$@"\n'
    )
    _write(folder / "nvidia-smi", smi, mode=0o755)
    for name in _SILENT_PROGRAMS:
        _write(folder / name, f"#!/bin/sh\necho '{name}: not simulated' >&2\nexit 1\n", mode=0o755)


def _build_sysfs(root: Path, state: SimulatedState) -> None:
    for index, gpu in enumerate(state.machine.hardware.gpus):
        pci = state.product(index).pci_device_id or "0x000010de"
        # The bridge between root and GPU; a GPU without a known root sits where sysfs has no PCI root.
        above = f"{gpu.pcie_root}/{gpu.pcie_root[3:]}:01.0" if gpu.pcie_root else "virtual"
        folder = root / "sys/devices" / above / gpu.pci_bus_id
        _write(folder / "numa_node", f"{-1 if gpu.numa_node is None else gpu.numa_node}\n")
        _write(folder / "vendor", f"0x{pci[6:]}\n")
        _write(folder / "device", f"{pci[:6]}\n")
        _write(folder / "class", "0x030200\n")
        _link(root / "sys/bus/pci/devices" / gpu.pci_bus_id, f"../../../devices/{above}/{gpu.pci_bus_id}")


def _build_proc(root: Path, state: SimulatedState) -> None:
    version = state.machine.hardware.driver_version
    _write(
        root / "proc/devices",
        "Character devices:\n"
        f"{FRONTEND_MAJOR} nvidia-frontend\n{CAPS_MAJOR} nvidia-caps\n{UVM_MAJOR} nvidia-uvm\n\n"
        "Block devices:\n",
    )
    _write(root / "proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}\n")
    for index, gpu in enumerate(state.machine.hardware.gpus):
        _write(
            root / "proc/driver/nvidia/gpus" / gpu.pci_bus_id / "information",
            f"Model: \t\t {state.product(index).name}\nGPU UUID: \t {state.gpus[index].uuid}\n"
            f"Bus Location: \t {gpu.pci_bus_id}\nDevice Minor: \t {gpu.minor}\n",
        )
    _write(root / "proc/sys/kernel/random/boot_id", f"{state.boot_id}\n")


def _write(path: Path, content: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
