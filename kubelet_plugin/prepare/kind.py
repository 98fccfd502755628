"""The protocols of a kind of device and of a wrapper around one: all that ``prepare`` knows of either.

A :class:`Kind` owns device names: what they stand for on a machine, which locks they need, which configuration they
take. A :class:`Wrapper` owns no name: it is a way of sharing, put around devices of any kind by their configuration or
because they are shares. Both make steps, and what they have in common is a :class:`Maker`.

The order in a claim is: steps of the kinds, steps of the wrappers, the CDI file; each in the order of registration.
Kinds are registered once, in ``kubelet_plugin.kinds``; nothing in ``prepare`` names one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from api.claim_config import ClaimConfig
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import AllocatedDevice
from kubelet_plugin.claims.configs import TakenConfig
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef


class NothingDone(Exception):
    """A step failed and says that it changed nothing, so it must not be undone: what is there is somebody else's."""

    def __init__(self, error: DriverError) -> None:
        super().__init__(str(error))
        self.error = error


class Step(Protocol):
    """One side effect, as a value."""

    @property
    def kind(self) -> str:
        """Chooses the runner; also in the checkpoint, so it never changes. No two makers have the same."""
        ...

    def does(self) -> str: ...

    def undo_does(self) -> str: ...

    def done_when(self) -> str: ...

    def record(self) -> StepRecord:
        """What is written down before it is done: enough to undo it, whatever came of it."""
        ...


class StepRunner(Protocol):
    """Does and undoes the steps of one kind. Each method may be called again after a crash in the middle of it.

    ``done``: the records, with results, of the steps of the same claim that came before.
    """

    # Whether a half-done one must be undone at the next start, and not done: before it begins, the record says so.
    do_needs_intent: bool
    undo_needs_intent: bool  # whether a half-done undo must be finished at the next start, not at the next unprepare
    survives_reboot: bool  # whether what was done in an earlier boot may still be there, to be undone

    def observe(self, step: Any, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        """What doing the step brought about, seen on the node itself; None when it is not done."""
        ...

    def do(self, step: Any, done: Sequence[StepRecord]) -> Mapping[str, str]:
        """What was brought about, for the journal. Raises ``DriverError``, or :class:`NothingDone`."""
        ...

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        """Nothing to undo is success. Raises ``DriverError``."""
        ...


class Removal(Protocol):
    """Something that no claim made, in the way of one, and that the administrator allows to remove."""

    def does(self) -> str: ...


class Place(Protocol):
    """What a device name stands for on this machine: a value of its kind's own."""

    @property
    def gpu_uuid(self) -> str:
        """The physical GPU behind it; empty for none."""
        ...

    def excludes(self, other: Place) -> bool:
        """Whether the two cannot be in use at once. Either may say so: a kind knows its own places, and GPUs."""
        ...


@dataclass(frozen=True, slots=True)
class ClaimDevice:
    """A device of a claim that may be prepared, between its allocation and its record."""

    claim: ClaimRef
    allocated: AllocatedDevice
    kind: Kind
    place: Place
    config: ClaimConfig
    wrappers: tuple[Wrapper, ...] = ()


@dataclass(frozen=True, slots=True)
class Others:
    """The other claims of this boot, those with a lost record mended, and the machine their devices are on."""

    entries: tuple[ClaimEntry, ...]
    machine: Machine


@dataclass(frozen=True, slots=True)
class MakerPlan:
    """What one maker has to do. ``removals`` come first and need no journal: nothing of them is ever undone."""

    steps: tuple[Step, ...] = ()
    removals: tuple[Removal, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A configuration that cannot be had here. ``field``: its path in the configuration; ``advice``: the way round.

    ``holder``: the other claim that is in the way; it can be had once that one has ended. Empty for what never can.
    ``why``: what is wrong, where it is not that no device of the node has it.
    """

    field: str
    value: str
    advice: str
    holder: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Mended:
    """What a claim with a lost record may have left: its devices as far as known, and the steps that made them."""

    devices: tuple[HeldDevice, ...]
    steps: tuple[StepRecord, ...] = ()


class Maker(Protocol):
    """What makes steps for devices of claims. Subclasses get the answers of a maker that has nothing to say.

    ``look``, ``remove`` and the runners touch the node, under the locks of the devices; all else is pure. An error of
    the node is a ``HardwareError``; an ``undo`` succeeds where the hardware has gone, and what was made on it with it.
    """

    @property
    def name(self) -> str:
        """For people and metrics: ``gpu``, ``mig``."""
        ...

    def look(self, devices: Sequence[ClaimDevice]) -> Any:
        """How things are on the node right now, as far as :meth:`plan` must know. Raises ``HardwareError``."""
        return None

    def plan(self, devices: Sequence[ClaimDevice], seen: Any, others: Others) -> MakerPlan:
        """What ``devices`` need, after ``seen``, the answer of :meth:`look`. Nothing of the claim itself is left.

        Not asked of a claim that is prepared already, nor of one whose record was lost: see :meth:`making_steps`.
        Raises ``DriverError`` where the node is not as the claim needs it.
        """
        return MakerPlan(self.making_steps(devices))

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[Step, ...]:
        """All that brings ``devices`` about, whatever is there already: for a claim whose record was lost."""
        return ()

    def still_needed(self, record: StepRecord, others: Sequence[ClaimEntry]) -> bool:
        """Whether another claim of this boot, in whatever state, needs what the step of ``record`` brought about. Then
        undoing it is left to the last one. For what claims share: the time slice of a GPU, one daemon for several."""
        return False

    def again(self, record: StepRecord) -> Step:
        """The step of a record that this maker's steps wrote. Raises KeyError or ValueError for one that is damaged."""
        raise ValueError(record.kind)

    def runners(self) -> Mapping[str, StepRunner]:
        """By kind of step: all kinds that this maker ever wrote into a checkpoint."""
        return {}

    def remove(self, removal: Any) -> None:
        """One of :attr:`MakerPlan.removals`. Raises ``DriverError``."""
        raise TypeError(f"{self.name} plans no removals: {removal}")

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> ContainerEdits:
        """What containers need of ``device`` that is known only after the steps, whose records are ``done``.

        A wrapper is asked about every device, also at a repetition that knows no configuration: it goes by its records.
        """
        return ContainerEdits()

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        """Why a prepared device of the claim ``entry`` cannot be used though its GPU answers, in a sentence; empty for
        one that can. ``machine`` is the reading; asked after each one, on the watch's thread, so it must not block."""
        return ""

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """What a claim with a lost record has left of ``devices``, which are this maker's (a wrapper gets all).

        ``machine`` raises ``HardwareError`` where it is not known; ask it only when the answer depends on it. A step
        whose arguments cannot be known any more has those that undo it whatever they were.
        """
        return Mended(tuple(devices))


class Kind(Maker, Protocol):
    """Devices with names of their own."""

    @property
    def takes(self) -> TakenConfig: ...

    def names(self, device_name: str) -> bool:
        """Whether the name is of this kind, on whatever machine."""
        ...

    def find(self, device_name: str, machine: Machine) -> Place:
        """What the name stands for. Raises ``DeviceNotFound``."""
        ...

    def locks(self, device_name: str, gpu_uuid: str) -> tuple[str, ...]:
        """Locks of what preparing and unpreparing the device may change; ``gpu_uuid`` is empty where unknown."""
        ...

    def admin_locks(self, place: Place) -> tuple[str, ...]:
        """Locks for a device with admin access, of which nothing is changed but which may be looked at."""
        return ()

    def refuses(self, config: ClaimConfig, *, honoured: bool) -> Refusal | None:
        """Why ``config`` cannot be had here. ``honoured``: a wrapper around the device does what it asks for."""
        return None

    def edits(self, place: Place) -> ContainerEdits:
        """What containers need of the device, as far as it is known beforehand. Raises ``HardwareError``."""
        ...


class Wrapper(Maker, Protocol):
    """A way of sharing, around devices of kinds, but for admin access, whose configuration changes nothing."""

    def wraps(self, device: ClaimDevice) -> bool:
        """Whether it is put around ``device``, by its configuration or its share id."""
        ...

    def honours(self, config: ClaimConfig) -> bool:
        """Whether it does what ``config`` of a device that it wraps asks for."""
        ...

    def refuses(self, device: ClaimDevice, beside: Sequence[ClaimDevice], others: Others) -> Refusal | None:
        """Why ``device`` cannot be had, whether wrapped or not, before anything is changed or undone.

        ``beside``: the claim's other devices. For two that ask for different things of one GPU, or limits that together
        are more than there is. Not asked of a claim that is prepared already. Raises ``DriverError`` for a refusal that
        is about no configuration.
        """
        return None
