"""A device that a group is about, by what is known of it before it is made, and how its UUID is found. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from dra_driver.devices.naming import MigName, device_behind, read_name
from dra_driver.hardware.model import Gpu, GpuInstance
from kubelet_plugin.claims.entry import HeldDevice
from kubelet_plugin.kinds.gpus import memory_of, mig_uuid
from kubelet_plugin.prepare.kind import ClaimDevice

_MIB = 1024**2


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """``device`` is the published name, and of a replica that of the device it stands for. A MIG device that a claim
    makes gets its UUID only then."""

    gpu_uuid: str
    device: str

    def __str__(self) -> str:
        """For the journal."""
        return f"{self.gpu_uuid}/{self.device}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what :meth:`__str__` did not make."""
        gpu_uuid, slash, device = text.partition("/")
        if not (gpu_uuid and slash and device):
            raise ValueError(f"{text!r} is no device of a GPU")
        return cls(gpu_uuid, device)

    @property
    def mig(self) -> MigName | None:
        """Where it is, for a MIG device; None for a whole GPU."""
        name = read_name(self.device)
        return name if isinstance(name, MigName) else None

    @property
    def word(self) -> str:
        """What it is called in the id of a group: its UUID where that is known beforehand."""
        return self.gpu_uuid if self.mig is None else str(self)

    def uuid(self, instances: Iterable[GpuInstance]) -> str | None:
        """``instances`` of its GPU; only a MIG device is looked for there. None for one that is not there."""
        name = self.mig
        if name is None:
            return self.gpu_uuid
        return mig_uuid(name, instances)


def member_of(device: ClaimDevice) -> Member:
    return Member(device.place.gpu_uuid, device_behind(device.allocated.device))


def member_held(held: HeldDevice) -> Member:
    return Member(held.gpu_uuid, device_behind(held.prepared.device_name))


def memory_mib(member: Member, gpu: Gpu) -> int | None:
    """What the device has; None where NVML gives no total, as on GPUs that share the host's memory."""
    memory = memory_of(member.device, gpu)
    return None if memory is None else memory // _MIB
