"""Which CUDA a driver serves at most, by its branch. Pure.

NVML says it (nvmlSystemGetCudaDriverVersion_v2), and programs go by it. From NVIDIA's CUDA Toolkit release notes (table
of toolkits and driver versions); 615 also from the guide "Per-GPU Compute and Memory Limits with MPS" of NVIDIA Dynamo.
"""

from __future__ import annotations

_CUDA_OF_BRANCH = {580: 13000, 590: 13010, 615: 13040}


def branch(driver_version: str) -> int:
    """615 for ``615.71.09``."""
    return int(driver_version.partition(".")[0])


def cuda_driver_version(driver_version: str, otherwise: int) -> int:
    """As NVML says it, 13040 for CUDA 13.4; ``otherwise`` for a branch that is not in the table."""
    return _CUDA_OF_BRANCH.get(branch(driver_version), otherwise)
