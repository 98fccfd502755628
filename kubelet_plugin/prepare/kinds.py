"""All kinds and wrappers of a node, asked as one: whose a device name is, whose a step is, what a claim locks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from dra_driver.cdi.spec import ContainerEdits
from dra_driver.devices.naming import minor_of
from dra_driver.errors import DeviceNotFound, HardwareError, StateError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.absent import absent_device
from kubelet_plugin.claims.allocated import AllocatedDevice
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.lock_names import gpu_lock
from kubelet_plugin.prepare.kind import ClaimDevice, Kind, Maker, Place, Step, StepRunner, Wrapper

logger = logging.getLogger(__name__)


class Kinds:
    """In the order of registration, which is the order of their steps in a claim."""

    def __init__(self, kinds: Sequence[Kind], wrappers: Sequence[Wrapper] = ()) -> None:
        """Raises ValueError when two of them write steps of one kind."""
        self._kinds = tuple(kinds)
        self.wrappers = tuple(wrappers)
        self.makers: tuple[Maker, ...] = (*self._kinds, *self.wrappers)
        self._maker_of: dict[str, Maker] = {}
        runners: dict[str, StepRunner] = {}
        for maker in self.makers:
            for kind, runner in maker.runners().items():
                if kind in runners:
                    raise ValueError(f"{maker.name} and {self._maker_of[kind].name} both have steps of kind {kind!r}")
                runners[kind] = runner
                self._maker_of[kind] = maker
        self.runners: Mapping[str, StepRunner] = runners

    def of(self, device_name: str) -> Kind | None:
        return next((kind for kind in self._kinds if kind.names(device_name)), None)

    def find(self, device_name: str, machine: Machine) -> tuple[Kind, Place]:
        """Raises ``DeviceNotFound``, also for a name that is of no kind."""
        kind = self.of(device_name)
        if kind is None:
            raise absent_device(device_name, machine)
        return kind, kind.find(device_name, machine)

    def gpu_of(self, device: HeldDevice) -> str | None:
        """UUID of the GPU behind it; empty where the record was lost, None for a kind of device that has none."""
        name = device.prepared.device_name
        has_none = not device.gpu_uuid and minor_of(name) is None and self.of(name) is not None
        return None if has_none else device.gpu_uuid

    def type_of(self, device_name: str) -> str:
        """The name of its kind, for people and metrics."""
        kind = self.of(device_name)
        return "unknown" if kind is None else kind.name

    def again(self, record: StepRecord) -> Step:
        """The step of a record. Raises ``StateError`` for one that no maker here has written."""
        maker = self._maker_of.get(record.kind)
        if maker is None:
            raise unknown_step(record.kind)
        try:
            return maker.again(record)
        except (KeyError, ValueError) as error:
            raise StateError(
                f"the checkpoint has a step of kind {record.kind!r} with arguments that cannot be read: {error!r}",
                hint="delete the pod, so that its claim is unprepared and allocated anew",
            ) from error

    def collide(self, device: AllocatedDevice, place: Place, held: HeldDevice, machine: Machine) -> bool:
        """Whether ``device``, which is at ``place``, cannot be had beside ``held``, another claim's."""
        if held.admin_access:
            return False
        theirs = held.prepared.device_name
        if theirs == device.device:
            return device.share_id is None or held.is_exclusive
        try:
            _kind, other = self.find(theirs, machine)
        except DeviceNotFound:
            # The GPU no longer has what was held, or we never knew it: who can say what that covers.
            return place.gpu_uuid != "" and place.gpu_uuid == (held.gpu_uuid or _gpu_of(theirs, machine))
        return exclude_each_other(place, other)

    # -- locks --------------------------------------------------------------------------------------------------------

    def locks_of_entry(self, entry: ClaimEntry) -> set[str]:
        """Of what undoing the claim may change; admin access has changed nothing."""
        held = (device for device in entry.devices if not device.admin_access)
        return {lock for device in held for lock in self._locks(device.prepared.device_name, device.gpu_uuid)}

    def locks_of_devices(self, devices: Iterable[AllocatedDevice], machine: Machine) -> set[str]:
        """Of what preparing the devices may change or look at."""
        locks: set[str] = set()
        for device in devices:
            try:
                kind, place = self.find(device.device, machine)
            except DeviceNotFound:
                continue  # refused later, with its reason
            if device.admin_access:
                locks.update(kind.admin_locks(place))
            else:
                locks.update(kind.locks(device.device, place.gpu_uuid))
        return locks

    def _locks(self, device_name: str, gpu_uuid: str) -> tuple[str, ...]:
        kind = self.of(device_name)
        if kind is not None:
            return kind.locks(device_name, gpu_uuid)
        return (gpu_lock(gpu_uuid),) if gpu_uuid else ()

    # -- what is asked of every maker ---------------------------------------------------------------------------------

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> Iterator[ContainerEdits]:
        for maker in (device.kind, *self.wrappers):
            yield maker.late_edits(device, done)

    def still_needed(self, record: StepRecord, others: Sequence[ClaimEntry]) -> bool:
        maker = self._maker_of.get(record.kind)
        return maker is not None and maker.still_needed(record, others)

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        """Why a prepared device cannot be used, by all who know something of it; empty for one that can."""
        return "; ".join(filter(None, (maker.trouble(device, entry, machine) for maker in self._makers_of(device))))

    def mended(self, entry: ClaimEntry, machine: Callable[[], Machine]) -> ClaimEntry:
        """``entry`` with all that undoing it needs, also when its record was lost. Raises ``HardwareError``."""
        if entry.state is not ClaimState.RECORD_LOST:
            return entry
        devices = list(entry.devices)
        steps: list[StepRecord] = []
        for maker in self.makers:
            theirs = [at for at, device in enumerate(devices) if maker in self._makers_of(device)]
            mended = maker.mend(entry.ref, [devices[at] for at in theirs], machine)
            for at, device in zip(theirs, mended.devices, strict=True):
                devices[at] = device
            steps.extend(mended.steps)
        return replace(entry, devices=tuple(devices), steps=(*steps, *entry.steps))

    def others(
        self, entries: Mapping[str, ClaimEntry], uid: str, boot_id: str, machine: Callable[[], Machine]
    ) -> tuple[ClaimEntry, ...]:
        """The claims of this boot but ``uid``; what is lost of a record is mended as far as the hardware is known."""
        return tuple(
            self._mended_or_not(entry, machine)
            for entry in entries.values()
            if entry.ref.uid != uid and entry.boot_id == boot_id
        )

    def _mended_or_not(self, entry: ClaimEntry, machine: Callable[[], Machine]) -> ClaimEntry:
        try:
            return self.mended(entry, machine)
        except HardwareError as error:
            logger.warning("claim %s has no record, and its devices are not known: %s", entry.title, error)
            return entry

    def _makers_of(self, device: HeldDevice) -> tuple[Maker, ...]:
        kind = self.of(device.prepared.device_name)
        return self.wrappers if kind is None else (kind, *self.wrappers)


def exclude_each_other(one: Place, other: Place) -> bool:
    return one.excludes(other) or other.excludes(one)


def unknown_step(kind: str) -> StateError:
    return StateError(
        f"the checkpoint has a step of kind {kind!r}, which this version of the driver does not know",
        hint="run the version that prepared the claim until it is unprepared",
    )


def _gpu_of(device_name: str, machine: Machine) -> str | None:
    gpu = machine.with_minor(minor_of(device_name))
    return None if gpu is None else gpu.uuid
