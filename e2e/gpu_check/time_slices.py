"""Whether nvidia-smi's list of time-slice intervals is understood: its table is no interface that NVIDIA promises."""

from __future__ import annotations

from pathlib import Path

from dra_driver.errors import HardwareError
from dra_driver.hardware.compute_policy import ComputePolicy
from dra_driver.hardware.nvidia_smi import NvidiaSmi, SmiMissing
from dra_driver.hardware.nvml.library import find_library
from e2e.gpu_check.facts import Facts, NotHere
from e2e.gpu_check.side import Side

_SECONDS = 5.0


def intervals(side: Side) -> Facts:
    """Of each GPU: which one is set is its administrator's business."""
    policy = ComputePolicy(NvidiaSmi(side.driver_root, _SECONDS, lambda: _library(side)))
    return {f"GPU {gpu.index}, time-slice interval": _answer(policy, gpu.uuid) for gpu in side.machine.gpus}


def _library(side: Side) -> Path | None:
    linker_knows = side.driver_root == Path("/") or side.state_file is not None
    return None if linker_knows else find_library(side.driver_root)


def _answer(policy: ComputePolicy, gpu_uuid: str) -> str:
    try:
        return "told" if policy.interval(gpu_uuid) else "not understood"
    except SmiMissing as error:
        raise NotHere(error.message) from error
    except HardwareError as error:
        return error.reason
