"""Devices of prepared claims that are gone though their GPU is there: a MIG device can be destroyed by hand.

Judged at the end of each reading, on the watch's thread, by what the kinds say. A reading may be older than a prepare
that ended while it was made, so only what two readings in a row say counts: the second began after the first was
judged, and what that found missing was made before its claim was prepared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from dra_driver.errors import StateError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice
from kubelet_plugin.hardware.watch import HardwareState

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 1.0


class Watch(Protocol):
    """What is needed of the hardware watch (``kubelet_plugin.hardware.watch.HardwareWatch``)."""

    @property
    def state(self) -> HardwareState: ...
    def on_reading(self, listener: Callable[[], None]) -> None: ...
    def request_scan_within(self, seconds: float) -> None: ...


class KindsOfDevices(Protocol):
    """What is needed of ``prepare.kinds.Kinds``."""

    def is_missing(self, device: HeldDevice, machine: Machine) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Absence:
    claim_uid: str
    device: str


class MissingDevices:
    """``entries``: the checkpoint as it is now; may raise ``StateError``, then nothing is judged."""

    def __init__(
        self, watch: Watch, entries: Callable[[], Mapping[str, ClaimEntry]], kinds: KindsOfDevices, boot_id: str
    ) -> None:
        self._watch = watch
        self._entries = entries
        self._kinds = kinds
        self._boot_id = boot_id
        self._absent: frozenset[_Absence] = frozenset()
        self._missing: frozenset[_Absence] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        watch.on_reading(self._read)

    @property
    def devices(self) -> frozenset[str]:
        return frozenset(absence.device for absence in self._missing)

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called on the watch's thread when :attr:`devices` changed. It must not block."""
        self._listeners.append(listener)

    def _read(self) -> None:
        state = self._watch.state
        if state.machine is None or state.problem:
            return  # a problem: it is the machine of an earlier reading, judged already
        try:
            absent = frozenset(self._absences(state.machine, self._entries().values()))
        except StateError as error:
            logger.warning("cannot tell whether claims have their devices: %s", error)
            return
        missing, before = absent & self._absent, self._missing
        for lost in missing - before:
            logger.error("claim %s: somebody has destroyed its device %s", lost.claim_uid, lost.device)
        self._absent, self._missing = absent, missing
        if absent - missing:
            self._watch.request_scan_within(_LOOK_AGAIN_SECONDS)
        if missing != before:
            for listener in self._listeners:
                listener()

    def _absences(self, machine: Machine, entries: Iterable[ClaimEntry]) -> Iterator[_Absence]:
        """Only of prepared claims: before and after, a device may be missing for a good reason."""
        for entry in entries:
            if entry.state is ClaimState.COMPLETED and entry.boot_id == self._boot_id:
                for held in entry.devices:
                    if not held.admin_access and self._kinds.is_missing(held, machine):
                        yield _Absence(entry.ref.uid, held.prepared.device_name)
