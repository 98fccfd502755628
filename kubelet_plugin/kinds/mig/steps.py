"""What a prepare does to MIG, step by step, as values. Pure.

A step is its record: everything that undoing it needs is known before it is done (the GPU, the profile, the placement),
so the journal is written once, before the first of them, and after a crash the hardware tells which were done.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.kinds.mig.place import MigPlace, from_arguments, to_arguments

MODE_ON = "MigModeOn"
GPU_INSTANCE = "GpuInstance"
COMPUTE_INSTANCE = "ComputeInstance"


class Afterwards(StrEnum):
    """What becomes of MIG mode once the last instance of the GPU is gone."""

    OFF = "off"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class MigModeOn:
    """MIG mode of a GPU that changes it without a reset."""

    gpu_uuid: str
    afterwards: Afterwards

    kind = MODE_ON

    def does(self) -> str:
        return f"turn MIG mode of GPU {self.gpu_uuid} on"

    def undo_does(self) -> str:
        if self.afterwards is Afterwards.KEPT:
            return "nothing, MIG mode stays on"
        return f"turn MIG mode of GPU {self.gpu_uuid} off when no instance is left"

    def done_when(self) -> str:
        return "it is on"

    def record(self) -> StepRecord:
        return StepRecord(self.kind, {"gpu": self.gpu_uuid, "afterwards": str(self.afterwards)})


@dataclass(frozen=True, slots=True)
class MakeGpuInstance:
    """The memory side of a MIG device. Devices that are parts of one GPU instance share it: the last one removes it."""

    place: MigPlace

    kind = GPU_INSTANCE

    def does(self) -> str:
        return f"make GPU instance {self.place}"

    def undo_does(self) -> str:
        shared = "" if self.place.compute_start is None else " once no compute instance is left in it"
        return f"destroy that GPU instance{shared}"

    def done_when(self) -> str:
        return "one of that profile is at that placement"

    def record(self) -> StepRecord:
        return StepRecord(self.kind, to_arguments(self.place))


@dataclass(frozen=True, slots=True)
class MakeComputeInstance:
    """The compute side: what processes use and what has a MIG UUID."""

    place: MigPlace

    kind = COMPUTE_INSTANCE

    def does(self) -> str:
        return f"make a compute instance of {self.place.slices} slices in GPU instance {self.place}"

    def undo_does(self) -> str:
        return "destroy that compute instance"

    def done_when(self) -> str:
        return "it is there"

    def record(self) -> StepRecord:
        return StepRecord(self.kind, to_arguments(self.place))


MigStep = MigModeOn | MakeGpuInstance | MakeComputeInstance


def recorded_step(record: StepRecord) -> MigStep:
    """Raises KeyError or ValueError for a record that none of these steps wrote."""
    arguments = record.arguments
    if record.kind == MODE_ON:
        return MigModeOn(arguments["gpu"], Afterwards(arguments["afterwards"]))
    if record.kind == GPU_INSTANCE:
        return MakeGpuInstance(from_arguments(arguments))
    if record.kind == COMPUTE_INSTANCE:
        return MakeComputeInstance(from_arguments(arguments))
    raise ValueError(record.kind)
