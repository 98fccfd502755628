"""Device names: what a claim's allocation holds, so they must mean the same hardware for as long as any claim lives.

They are NVIDIA's (dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin, canonical names): ``gpu-<minor>`` for a whole GPU and
``gpu-<minor>-mig-<profile>-<GPU instance profile id>-<placement start>`` for a MIG device. The minor number is that of
``/dev/nvidia<minor>``; NVML's index is not stable.

Ours alone is the end ``-c<compute start>`` of a partial compute instance, which NVIDIA's driver does not offer: several
of them lie in one GPU instance, so where the GPU instance is does not tell them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_GPU = re.compile(r"gpu-(0|[1-9][0-9]*)", re.ASCII)
_MIG = re.compile(
    r"gpu-(0|[1-9][0-9]*)-mig-([a-z0-9-]+)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)(?:-c(0|[1-9][0-9]*))?", re.ASCII
)
_PARTIAL = re.compile(r"([1-9][0-9]*)c[1-9][0-9]*g", re.ASCII)
_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9]", re.ASCII)


@dataclass(frozen=True, slots=True)
class GpuName:
    """A whole GPU, by its minor number."""

    minor: int

    def __str__(self) -> str:
        return f"gpu-{self.minor}"


@dataclass(frozen=True, slots=True)
class MigName:
    """A MIG device: where it is, not which one it is. ``profile`` is the profile's name as a part of a DNS label.

    ``compute_start`` is the first compute slice within the GPU instance, for a compute instance that is only a part of
    it; None for one that is all of it.
    """

    minor: int
    profile: str
    profile_id: int
    start: int
    compute_start: int | None = None

    def __str__(self) -> str:
        part = "" if self.compute_start is None else f"-c{self.compute_start}"
        return f"gpu-{self.minor}-mig-{self.profile}-{self.profile_id}-{self.start}{part}"

    def compute_slices(self) -> range | None:
        """The compute slices of a partial compute instance within its GPU instance; None for a whole one."""
        match = _PARTIAL.match(self.profile)
        if self.compute_start is None or match is None:
            return None
        return range(self.compute_start, self.compute_start + int(match[1]))


def gpu_name(minor: int) -> str:
    return str(GpuName(minor))


def mig_name(minor: int, profile: str, profile_id: int, start: int, compute_start: int | None = None) -> str:
    """``profile`` as NVML names it ("1g.10gb+me", "1c.3g.40gb"); ``profile_id``, of the GPU instance, as
    ``nvidia-smi mig -lgip`` prints it; ``compute_start`` as in :class:`MigName`."""
    return str(MigName(minor, profile_label(profile), profile_id, start, compute_start))


def partial_profile(profile: str, slices: int) -> str:
    """``3g.40gb`` with one compute slice is ``1c.3g.40gb`` (nvidia-smi mig -lcip)."""
    return f"{slices}c.{profile}"


def profile_label(profile: str) -> str:
    """``1g.10gb+me`` becomes ``1g10gb-me``: lower case, dots dropped, every other character outside a-z 0-9 a dash."""
    return _NOT_IN_A_LABEL.sub("-", profile.lower().replace(".", ""))


def parse_name(name: str) -> GpuName | MigName:
    """What a device name stands for. Raises ValueError when it is none of ours."""
    if match := _GPU.fullmatch(name):
        return GpuName(int(match[1]))
    if match := _MIG.fullmatch(name):
        compute_start = None if match[5] is None else int(match[5])
        return MigName(int(match[1]), match[2], int(match[3]), int(match[4]), compute_start)
    raise ValueError(
        f"device name {name!r} is neither gpu-<minor> nor gpu-<minor>-mig-<profile>-<profile id>-<placement start>"
    )


def read_name(name: str) -> GpuName | MigName | None:
    """What a device name stands for; None when it is none of ours."""
    try:
        return parse_name(name)
    except ValueError:
        return None


def minor_of(name: str) -> int | None:
    """The minor number of the GPU that a device belongs to; None for a name that is none of ours."""
    found = read_name(name)
    return None if found is None else found.minor
