"""The hardware as the controller is told of it: the last reading, judged with the checkpoint beside it.

Sits between the hardware watch and the inventory writer. It has no thread: everything happens at the end of a
reading, on the watch's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from api.mig_policy import MigMode
from dra_driver.errors import StateError
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import describe
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.kinds.mig.foreign import Sighting, told, unowned
from kubelet_plugin.kinds.mig.owners import owners
from kubelet_plugin.kinds.mig.refused import RefusedPlacements

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 1.0


class Watch(Protocol):
    """What is needed of the hardware watch (``kubelet_plugin.hardware.watch.HardwareWatch``)."""

    @property
    def state(self) -> HardwareState: ...
    def on_reading(self, listener: Callable[[], None]) -> None: ...
    def request_scan(self) -> None: ...
    def request_scan_within(self, seconds: float) -> None: ...


class JudgedHardware:
    """An ``inventory.writer.HardwareSource``."""

    def __init__(
        self,
        watch: Watch,
        entries: Callable[[], Mapping[str, ClaimEntry]],
        policy: NodePolicy,
        refused: RefusedPlacements,
    ) -> None:
        """``entries``: the checkpoint as it is now; may raise ``StateError``, then nothing is judged."""
        self._watch = watch
        self._entries = entries
        self._policy = policy
        self._refused = refused
        self._listeners: list[Callable[[], None]] = []
        self._suspects: frozenset[Sighting] | None = None  # None: nothing was judged yet
        self._foreign: frozenset[Sighting] = frozenset()
        self._state = HardwareState()
        watch.on_reading(self._read)
        refused.on_change(watch.request_scan)

    @property
    def state(self) -> HardwareState:
        return self._state

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called on the watch's thread when something here changed. It must not block."""
        self._listeners.append(listener)

    def _read(self) -> None:
        raw, before = self._watch.state, self._state
        state = raw
        if raw.machine is not None:
            if not raw.problem:  # else it is the machine of an earlier reading, judged already
                at_first = self._suspects is None
                self._judge(raw.machine)
                if at_first and self._suspects:
                    # A restart: what the last process found foreign must not be taken back until the next reading.
                    self._watch.request_scan_within(0.0)
                    return
            state = replace(raw, machine=told(raw.machine, self._foreign, self._refused.by_gpu(), self._mode))
        if (until := self._refused.next_expiry()) is not None:
            self._watch.request_scan_within(until)
        self._state = state
        if self._state != before:
            for listener in self._listeners:
                listener()

    def _judge(self, machine: Machine) -> None:
        try:
            entries = self._entries().values()
        except StateError as error:
            logger.warning("cannot tell whose MIG instances these are: %s", error)
            return
        without_owner = unowned(machine, owners(entries, machine, self._policy.boot_id), self._mode)
        foreign = without_owner & (self._suspects or frozenset())
        for new in foreign - self._foreign:
            logger.warning("GPU %s has what no claim has made: %s", new.gpu_uuid, describe(new.instance))
        doubtful = without_owner - foreign
        self._foreign, self._suspects = foreign, without_owner
        if doubtful:
            self._watch.request_scan_within(_LOOK_AGAIN_SECONDS)

    def _mode(self, gpu: Gpu) -> MigMode:
        return self._policy.mig(gpu).mode
