"""The step that writes a claim's CDI file, and its runner.

It is the last one: no container can be started with a device that is not ready. A MIG device's capability nodes are
known only once its instance exists, so the step says where they come from and the file is made when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dra_driver.cdi.spec import ContainerEdits, Device, DeviceNode, Spec
from dra_driver.cdi.store import CdiStore
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.kinds.mig.place import MigPlace

CDI_FILE = "CDIFile"


@dataclass(frozen=True, slots=True)
class MigPart:
    """The MIG device whose capability nodes a CDI device gets; ``gpu_minor`` is its GPU's."""

    place: MigPlace
    gpu_minor: int


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """One device of the file. ``edits``: what is known beforehand, the GPU's own nodes."""

    name: str
    edits: ContainerEdits
    mig: MigPart | None = None


@dataclass(frozen=True, slots=True)
class WriteCdiFile:
    """The claim's CDI file: the containers of its pods are made from it."""

    claim_uid: str
    file_name: str
    cdi_kind: str
    devices: tuple[CdiDevice, ...]
    common: ContainerEdits

    kind = CDI_FILE

    def does(self) -> str:
        names = ", ".join(device.name for device in self.devices)
        made = [str(device.mig.place) for device in self.devices if device.mig]
        return f"write CDI file {self.file_name} with {names}" + (
            f" and the capability nodes of {', '.join(made)}" if made else ""
        )

    def undo_does(self) -> str:
        return f"remove CDI file {self.file_name}"

    def done_when(self) -> str:
        return f"{self.file_name} is there with exactly this content"

    def record(self) -> StepRecord:
        return StepRecord(self.kind)

    def spec(self, capabilities: Callable[[MigPart], Sequence[DeviceNode]]) -> Spec:
        """The file's content; ``capabilities`` are asked for each MIG device."""
        return Spec(self.cdi_kind, tuple(_device(device, capabilities) for device in self.devices), self.common)


def _device(device: CdiDevice, capabilities: Callable[[MigPart], Sequence[DeviceNode]]) -> Device:
    if device.mig is None:
        return Device(device.name, device.edits)
    nodes = (*device.edits.device_nodes, *capabilities(device.mig))
    return Device(device.name, replace(device.edits, device_nodes=nodes))


class MigCapabilities(Protocol):
    """The device nodes that give access to a MIG device (``mig.capabilities``). Raises ``HardwareError``."""

    def nodes(self, part: MigPart, done: Sequence[StepRecord]) -> Sequence[DeviceNode]:
        """``done``: the claim's steps so far, whose results say which instances were made."""
        ...


class CdiFileRunner:
    """Writes and removes claims' CDI files."""

    undo_needs_intent = False  # a claim without its file is whole again by writing or by removing it once more
    survives_reboot = True  # the folder is a tmpfs on most nodes only

    def __init__(self, store: CdiStore, capabilities: MigCapabilities) -> None:
        self._store = store
        self._capabilities = capabilities

    def observe(self, step: WriteCdiFile, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        return {} if self._store.holds(step.claim_uid, self._spec(step, done)) else None

    def do(self, step: WriteCdiFile, done: Sequence[StepRecord]) -> Mapping[str, str]:
        self._store.write(step.claim_uid, self._spec(step, done))
        return {}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        self._store.remove(claim_uid)

    def _spec(self, step: WriteCdiFile, done: Sequence[StepRecord]) -> Spec:
        return step.spec(lambda part: self._capabilities.nodes(part, done))
