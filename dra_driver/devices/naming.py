"""Device names: what a claim's allocation holds, so they must mean the same hardware for as long as any claim lives.

They are NVIDIA's (dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin, canonical names): ``gpu-<minor>`` for a whole GPU and
``gpu-<minor>-mig-<profile>-<GPU instance profile id>-<placement start>`` for a MIG device. The minor number is that of
``/dev/nvidia<minor>``; NVML's index is not stable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_GPU = re.compile(r"gpu-(0|[1-9][0-9]*)", re.ASCII)
_MIG = re.compile(r"gpu-(0|[1-9][0-9]*)-mig-([a-z0-9-]+)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)", re.ASCII)
_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9]", re.ASCII)


@dataclass(frozen=True, slots=True)
class GpuName:
    """A whole GPU, by its minor number."""

    minor: int

    def __str__(self) -> str:
        return f"gpu-{self.minor}"


@dataclass(frozen=True, slots=True)
class MigName:
    """A MIG device: where it is, not which one it is. ``profile`` is the profile's name as a part of a DNS label."""

    minor: int
    profile: str
    profile_id: int
    start: int

    def __str__(self) -> str:
        return f"gpu-{self.minor}-mig-{self.profile}-{self.profile_id}-{self.start}"


def gpu_name(minor: int) -> str:
    return str(GpuName(minor))


def mig_name(minor: int, profile: str, profile_id: int, start: int) -> str:
    """``profile`` as NVML names it ("1g.10gb+me"); ``profile_id`` as ``nvidia-smi mig -lgip`` prints it."""
    return str(MigName(minor, profile_label(profile), profile_id, start))


def profile_label(profile: str) -> str:
    """``1g.10gb+me`` becomes ``1g10gb-me``: lower case, dots dropped, every other character outside a-z 0-9 a dash."""
    return _NOT_IN_A_LABEL.sub("-", profile.lower().replace(".", ""))


def parse_name(name: str) -> GpuName | MigName:
    """What a device name stands for. Raises ValueError when it is none of ours."""
    if match := _GPU.fullmatch(name):
        return GpuName(int(match[1]))
    if match := _MIG.fullmatch(name):
        return MigName(int(match[1]), match[2], int(match[3]), int(match[4]))
    raise ValueError(
        f"device name {name!r} is neither gpu-<minor> nor gpu-<minor>-mig-<profile>-<profile id>-<placement start>"
    )
