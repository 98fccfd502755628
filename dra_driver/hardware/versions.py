"""Versions as NVIDIA's DRA driver publishes them: valid SemVer, so that selectors can compare them.

Pure text: NVML's forms come in, SemVer 2.0.0 goes out. The API server refuses a version attribute that is not SemVer.
"""

from __future__ import annotations


def driver_version(reported: str) -> str:
    """``580.105.08`` (nvmlSystemGetDriverVersion) becomes ``580.105.8``: leading zeros are not allowed in SemVer.

    A two-part version (``537.13``, as on WSL) gets ``.0``. ValueError when it is anything else.
    """
    parts = reported.strip().split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"driver version {reported!r} is not one to three numbers separated by dots")
    return ".".join(str(int(part)) for part in (*parts, "0", "0")[:3])


def cuda_version(reported: int) -> str:
    """``13000`` (nvmlSystemGetCudaDriverVersion: 1000 * major + 10 * minor) becomes ``13.0.0``."""
    if reported < 0:
        raise ValueError(f"CUDA driver version {reported} is negative")
    return f"{reported // 1000}.{reported % 1000 // 10}.0"


def compute_capability(reported: str) -> str:
    """``9.0`` (:attr:`Gpu.cuda_compute_capability`) becomes ``9.0.0``. ValueError when it is not two numbers."""
    parts = reported.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"compute capability {reported!r} is not <major>.<minor>")
    return f"{int(parts[0])}.{int(parts[1])}.0"
