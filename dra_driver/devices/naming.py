"""Device names: what a claim's allocation holds, so they must mean the same hardware for as long as any claim lives.

They are NVIDIA's (dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin, canonical names): ``gpu-<minor>`` for a whole GPU and
``gpu-<minor>-mig-<profile>-<GPU instance profile id>-<placement start>`` for a MIG device. The minor number is that of
``/dev/nvidia<minor>``; NVML's index is not stable.

Ours alone is the end ``-c<compute start>`` of a partial compute instance, which NVIDIA's driver does not offer: several
of them lie in one GPU instance, so where the GPU instance is does not tell them apart. And ``-replica-<n>``: one of
several devices that stand for the same hardware, on a server that cannot hold shares (``devices.shares``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_REPLICA = r"(?:-replica-(0|[1-9][0-9]*))?"
_REPLICA_END = re.compile(rf"{_REPLICA}$", re.ASCII)
_GPU = re.compile(rf"gpu-(0|[1-9][0-9]*){_REPLICA}", re.ASCII)
_MIG = re.compile(
    rf"gpu-(0|[1-9][0-9]*)-mig-([a-z0-9-]+)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)(?:-c(0|[1-9][0-9]*))?{_REPLICA}", re.ASCII
)
_PARTIAL = re.compile(r"([1-9][0-9]*)c[1-9][0-9]*g", re.ASCII)
_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9]", re.ASCII)


@dataclass(frozen=True, slots=True)
class GpuName:
    """A whole GPU, by its minor number. ``replica``: which of those that stand for it; None for the GPU itself."""

    minor: int
    replica: int | None = None

    def __str__(self) -> str:
        return replica_name(f"gpu-{self.minor}", self.replica)


@dataclass(frozen=True, slots=True)
class MigName:
    """A MIG device: where it is, not which one it is. ``profile`` is the profile's name as a part of a DNS label.

    ``compute_start`` is the first compute slice within the GPU instance, for a compute instance that is only a part of
    it; None for one that is all of it. ``replica`` as in :class:`GpuName`.
    """

    minor: int
    profile: str
    profile_id: int
    start: int
    compute_start: int | None = None
    replica: int | None = None

    def __str__(self) -> str:
        part = "" if self.compute_start is None else f"-c{self.compute_start}"
        return replica_name(f"gpu-{self.minor}-mig-{self.profile}-{self.profile_id}-{self.start}{part}", self.replica)

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


def replica_name(name: str, replica: int | None) -> str:
    """The name of one of the devices that stand for device ``name``."""
    return name if replica is None else f"{name}-replica-{replica}"


def device_behind(name: str) -> str:
    """The device that a replica stands for; any other name is its own."""
    return _REPLICA_END.sub("", name) if is_replica(name) else name


def is_replica(name: str) -> bool:
    found = read_name(name)
    return found is not None and found.replica is not None


def partial_profile(profile: str, slices: int) -> str:
    """``3g.40gb`` with one compute slice is ``1c.3g.40gb`` (nvidia-smi mig -lcip)."""
    return f"{slices}c.{profile}"


def profile_label(profile: str) -> str:
    """``1g.10gb+me`` becomes ``1g10gb-me``: lower case, dots dropped, every other character outside a-z 0-9 a dash."""
    return _NOT_IN_A_LABEL.sub("-", profile.lower().replace(".", ""))


def parse_name(name: str) -> GpuName | MigName:
    """What a device name stands for. Raises ValueError when it is none of ours."""
    if match := _GPU.fullmatch(name):
        return GpuName(int(match[1]), _number(match[2]))
    if match := _MIG.fullmatch(name):
        return MigName(int(match[1]), match[2], int(match[3]), int(match[4]), _number(match[5]), _number(match[6]))
    raise ValueError(
        f"device name {name!r} is neither gpu-<minor> nor gpu-<minor>-mig-<profile>-<profile id>-<placement start>"
    )


@lru_cache(maxsize=4096)  # the devices of all nodes have the same few names
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


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
