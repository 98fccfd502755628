"""Devices of prepared claims that cannot be used though their GPU answers: a MIG device can be destroyed by hand.

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
from dra_driver.observability.listeners import Listeners
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

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str: ...


@dataclass(frozen=True, slots=True)
class _Trouble:
    claim_uid: str
    device: str
    what: str


class TroubledDevices:
    """``entries``: the checkpoint as it is now; may raise ``StateError``, then nothing is judged."""

    def __init__(
        self, watch: Watch, entries: Callable[[], Mapping[str, ClaimEntry]], kinds: KindsOfDevices, boot_id: str
    ) -> None:
        self._watch = watch
        self._entries = entries
        self._kinds = kinds
        self._boot_id = boot_id
        self._seen: frozenset[_Trouble] = frozenset()
        self._sure: frozenset[_Trouble] = frozenset()
        self._changed: Listeners[[]] = Listeners("troubled devices changed")
        watch.on_reading(self._read)

    @property
    def devices(self) -> Mapping[str, str]:
        """What is wrong with each of them, by name."""
        return {trouble.device: trouble.what for trouble in sorted(self._sure, key=lambda each: each.device)}

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called on the watch's thread when :attr:`devices` changed. It must not block."""
        self._changed.add(listener)

    def _read(self) -> None:
        state = self._watch.state
        if state.machine is None or state.problem:
            return  # a problem: it is the machine of an earlier reading, judged already
        try:
            seen = frozenset(self._troubles(state.machine, self._entries().values()))
        except StateError as error:
            logger.warning("cannot tell whether claims have their devices: %s", error)
            return
        sure, before = seen & self._seen, self._sure
        for new in sure - before:
            logger.error("claim %s: device %s: %s", new.claim_uid, new.device, new.what)
        self._seen, self._sure = seen, sure
        if seen - sure:
            self._watch.request_scan_within(_LOOK_AGAIN_SECONDS)
        if sure != before:
            self._changed.tell()

    def _troubles(self, machine: Machine, entries: Iterable[ClaimEntry]) -> Iterator[_Trouble]:
        """Only of prepared claims: before and after, a device may be missing for a good reason."""
        for entry in entries:
            if entry.state is ClaimState.COMPLETED and entry.boot_id == self._boot_id:
                for held in entry.devices:
                    what = "" if held.admin_access else self._kinds.trouble(held, entry, machine)
                    if what:
                        yield _Trouble(entry.ref.uid, held.prepared.device_name, what)
