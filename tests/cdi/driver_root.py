"""Builds a driver root in a folder, for tests: stub files with the names that matter, and simulated device nodes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

VERSION = "550.163.01"
CONTROL_NUMBERS = {"nvidiactl": (195, 255), "nvidia-uvm": (510, 0), "nvidia-uvm-tools": (510, 1)}


def add_file(root: Path, inner: str, content: bytes = b"stub\n", *, executable: bool = False) -> Path:
    path = root / inner.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if executable:
        path.chmod(0o755)
    return path


def add_link(root: Path, inner: str, target: str) -> None:
    path = root / inner.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def add_devices(root: Path, numbers: Mapping[str, tuple[int, int]]) -> None:
    """Plain files as device nodes, with their table."""
    for name in numbers:
        add_file(root, f"/dev/{name}", b"")
    add_file(root, "/dev/.simulated-devices.json", json.dumps(numbers).encode())


def gpu_numbers(minors: Iterable[int]) -> dict[str, tuple[int, int]]:
    return {f"nvidia{minor}": (195, minor) for minor in minors}


def small_root(root: Path, *, version: str = VERSION, gpus: int = 2, folder: str = "/usr/lib64") -> Path:
    """A root with two libraries and their links, nvidia-smi, the control nodes and ``gpus`` GPUs."""
    for library in ("libcuda", "libnvidia-ml"):
        add_file(root, f"{folder}/{library}.so.{version}")
        add_link(root, f"{folder}/{library}.so.1", f"{library}.so.{version}")
    add_link(root, f"{folder}/libnvidia-ml.so", "libnvidia-ml.so.1")
    add_file(root, "/usr/bin/nvidia-smi", executable=True)
    add_devices(root, {**CONTROL_NUMBERS, **gpu_numbers(range(gpus))})
    return root
