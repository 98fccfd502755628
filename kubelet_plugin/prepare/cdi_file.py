"""The step that writes a claim's CDI file, and its runner.

It is the last one: no container can be started with a device that is not ready. Some of what containers get is known
only once the steps before it are done, so the step says whose it is, and the file is made when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dra_driver.cdi.spec import ContainerEdits, Device, Spec, join_edits
from dra_driver.cdi.store import CdiStore
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.prepare.kind import ClaimDevice
from kubelet_plugin.prepare.kinds import Kinds

CDI_FILE = "CDIFile"

LateEdits = Callable[[ClaimDevice], Iterable[ContainerEdits]]


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """One device of the file. ``edits``: what is known beforehand."""

    name: str
    edits: ContainerEdits
    device: ClaimDevice


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
        return f"write CDI file {self.file_name} with {', '.join(device.name for device in self.devices)}"

    def undo_does(self) -> str:
        return f"remove CDI file {self.file_name}"

    def done_when(self) -> str:
        return f"{self.file_name} is there with exactly this content"

    def record(self) -> StepRecord:
        return StepRecord(self.kind)

    def spec(self, late: LateEdits) -> Spec:
        """The file's content; ``late`` is asked for each device."""
        devices = (Device(each.name, join_edits(each.edits, *late(each.device))) for each in self.devices)
        return Spec(self.cdi_kind, tuple(devices), self.common)


class CdiFileRunner:
    """Writes and removes claims' CDI files."""

    do_needs_intent = False
    undo_needs_intent = False  # a claim without its file is whole again by writing or by removing it once more
    survives_reboot = True  # the folder is a tmpfs on most nodes only

    def __init__(self, store: CdiStore, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds

    def observe(self, step: WriteCdiFile, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        return {} if self._store.holds(step.claim_uid, self._spec(step, done)) else None

    def do(self, step: WriteCdiFile, done: Sequence[StepRecord]) -> Mapping[str, str]:
        self._store.write(step.claim_uid, self._spec(step, done))
        return {}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        self._store.remove(claim_uid)

    def _spec(self, step: WriteCdiFile, done: Sequence[StepRecord]) -> Spec:
        return step.spec(lambda device: self._kinds.late_edits(device, done))
