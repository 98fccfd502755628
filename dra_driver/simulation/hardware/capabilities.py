"""The kernel module's MIG capabilities as files below ``/proc/driver``: who may open an instance's device node.

Each GPU and compute instance that exists has an ``access`` file that names the minor of its /dev/nvidia-caps node. The
minors of all instances that could ever exist are fixed; ``mig-minors`` lists them (NVIDIA MIG user guide, "CUDA device
enumeration": config 1, monitor 2, gpu0/gi0/access 3, gpu0/gi0/ci0/access 4, ..., gpu31/gi14/ci7/access 4322).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from dra_driver.simulation.hardware.state import GpuState

FOLDER = "proc/driver/nvidia/capabilities"
MINORS = "proc/driver/nvidia-caps/mig-minors"
CAPABILITY_MODE = 0o444  # of the files themselves

_CONFIG_MINOR = 1
_MONITOR_MINOR = 2
_FIRST_MINOR = 3
_COMPUTE_INSTANCES = 8  # most per GPU instance
_PER_GPU_INSTANCE = 1 + _COMPUTE_INSTANCES
_GPU_INSTANCES = 15  # most per GPU: a whole one, 2 halves, 4 quarters, 8 eighths
_GPUS = 32

_READABLE = 0o444
_OWNER_ONLY = 0o400


def gpu_instance_minor(gpu_minor: int, gpu_instance: int) -> int:
    return _FIRST_MINOR + (gpu_minor * _GPU_INSTANCES + gpu_instance) * _PER_GPU_INSTANCE


def compute_instance_minor(gpu_minor: int, gpu_instance: int, compute_instance: int) -> int:
    return gpu_instance_minor(gpu_minor, gpu_instance) + 1 + compute_instance


@cache
def mig_minors() -> str:
    """The whole static table, which every build of a tree looks at."""
    lines = [f"config {_CONFIG_MINOR}", f"monitor {_MONITOR_MINOR}"]
    for gpu in range(_GPUS):
        for instance in range(_GPU_INSTANCES):
            lines.append(f"gpu{gpu}/gi{instance}/access {gpu_instance_minor(gpu, instance)}")
            lines += [
                f"gpu{gpu}/gi{instance}/ci{compute}/access {compute_instance_minor(gpu, instance, compute)}"
                for compute in range(_COMPUTE_INSTANCES)
            ]
    return "\n".join(lines) + "\n"


def general_files() -> Iterator[tuple[str, str]]:
    """The capabilities that a node has without any instance, by path below the host's root."""
    yield f"{FOLDER}/mig/config", _text(_CONFIG_MINOR, _OWNER_ONLY)
    yield f"{FOLDER}/mig/monitor", _text(_MONITOR_MINOR, _READABLE)


def instance_files(gpu_minor: int, gpu: GpuState) -> dict[str, str]:
    """Content by path below the host's root, for the instances that ``gpu`` has."""
    files: dict[str, str] = {}
    for instance in gpu.instances:
        folder = f"{FOLDER}/gpu{gpu_minor}/mig/gi{instance.id}"
        files[f"{folder}/access"] = _text(gpu_instance_minor(gpu_minor, instance.id), _READABLE)
        for compute in instance.compute_instances:
            minor = compute_instance_minor(gpu_minor, instance.id, compute.id)
            files[f"{folder}/ci{compute.id}/access"] = _text(minor, _READABLE)
    return files


def _text(minor: int, mode: int) -> str:
    return f"DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n"
