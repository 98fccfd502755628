"""Keeps GPUs to the layouts that rules ask for: when the plugin starts, when hardware changes, when a claim ends.

One thread. A GPU is changed only under its lock, while no claim in the checkpoint holds it; a prepare that comes
meanwhile waits for the lock and then sees what is there. What cannot be done now is tried again, after ever longer
pauses, and is told as a condition of the NodeInventory and an Event on the Node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from api.mig_policy import MigSettings
from api.node_inventory import MIG_LAYOUT_APPLIED, Condition
from dra_driver.devices.naming import gpu_name
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from dra_driver.kube.backoff import Backoff
from dra_driver.observability.listeners import Listeners
from dra_driver.observability.loops import Loop
from dra_driver.text import shortened
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.model import Failures, Operation
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.kinds.mig.layout import GpuLayout, LayoutOutcome, LayoutState, asked_layouts, bring_about, holders

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0
_LIMIT_SECONDS = 120.0  # for one GPU: seven GPU instances with their compute instances take a second each


class Claims(Protocol):
    """What is needed of the prepare engine. Both raise ``StateError``."""

    def entries(self) -> Mapping[str, ClaimEntry]: ...

    def try_gpu(self, gpu_uuid: str) -> AbstractContextManager[bool]:
        """The lock of a GPU, if nobody has it; tells whether it is held now."""
        ...


class Hardware(Protocol):
    """What is needed of the hardware watch."""

    @property
    def readings(self) -> int: ...
    def machine(self) -> Machine: ...
    def request_scan(self) -> None: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...
    def on_reading(self, listener: Callable[[], None]) -> None: ...


class LayoutListener(Protocol):
    """Who tells people. Called on the applier's thread."""

    def layout_outcome(self, outcome: LayoutOutcome) -> None:
        """A GPU's outcome is another one than before."""
        ...


class LayoutApplier:
    """Thread ``mig-layouts`` between start and stop; none where no rule asks for a layout. A ``CallObserver``."""

    def __init__(
        self,
        settings: MigSettings,
        policy: NodePolicy,
        hardware: Hardware,
        mig: MigHardware,
        claims: Claims,
        listener: LayoutListener,
        *,
        retry: float = _FIRST_RETRY_SECONDS,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._hardware = hardware
        self._mig = mig
        self._claims = claims
        self._outcomes: dict[str, LayoutOutcome] | None = None  # by GPU UUID; None before the first pass
        self._changed_in: int | None = None  # the reading under way at a change that no reading shows yet
        self._backoff = Backoff(retry, max(retry, _LONGEST_RETRY_SECONDS))
        self.loop = Loop(
            "mig-layouts",
            self._round,
            limit=_LIMIT_SECONDS,
            doing="applying MIG layouts",
            retry=Backoff(retry, max(retry, _LONGEST_RETRY_SECONDS)),
            expected=(DriverError,),  # no hardware to read, no checkpoint
        )
        self._changed: Listeners[[]] = Listeners("MIG layouts changed", self.loop.count_error)
        self._told: Listeners[[LayoutOutcome]] = Listeners("a MIG layout's outcome", self.loop.count_error)
        self._told.add(listener.layout_outcome)
        if self.wanted:
            hardware.on_change(self.loop.wake)
            hardware.on_reading(self._was_read)

    @property
    def wanted(self) -> bool:
        """Whether any rule asks for a layout."""
        return any(rule.layout for rule in self._policy.devices.mig.rules)

    @property
    def pending(self) -> bool:
        """Whether the first pass is still to come, or the reading that shows what it has changed.

        MIG mode of newer GPUs does not outlive a boot, so a node must not offer them as whole GPUs meanwhile.
        """
        return self.wanted and (self._outcomes is None or self._changed_in is not None)

    def condition(self) -> Condition | None:
        """Condition MigLayoutApplied; None where no GPU has a layout."""
        outcomes = self._outcomes
        return _condition(list(outcomes.values())) if outcomes else None

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called when the condition or ``pending`` may have changed. It must not block."""
        self._changed.add(listener)

    def start(self) -> None:
        if self.wanted:
            self.loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; a GPU that is being changed is left to the next process after ``timeout`` seconds."""
        if not self.loop.stop(timeout):
            logger.warning("a MIG layout is still being applied %.0f s after stop", timeout)

    # -- CallObserver: a claim that ended may be what a GPU waited for ------------------------------------------------

    def started(self, operation: Operation) -> None:
        """Nothing to do yet."""

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        if operation is Operation.UNPREPARE:
            self.loop.wake()

    # -- the work -----------------------------------------------------------------------------------------------------

    def _round(self) -> float | None:
        if not self.run_once():
            return self._backoff.next_delay()
        self._backoff.reset()
        return None

    def run_once(self) -> bool:
        """One pass over all GPUs with a layout, on the calling thread. False when something is left to try again.

        Raises DriverError when there is no hardware or no checkpoint to look at.
        """
        before = self._outcomes or {}
        outcomes: dict[str, LayoutOutcome] = {}
        for asked in asked_layouts(self._hardware.machine(), self._policy, self._settings):
            if self.loop.stopping:
                return False
            self.loop.beat()
            outcomes[asked.gpu.uuid] = self._one(asked, before.get(asked.gpu.uuid))
        told = {uuid: (each.state, each.message) for uuid, each in before.items()}
        for uuid, outcome in outcomes.items():
            if outcome.changed or told.get(uuid) != (outcome.state, outcome.message):
                self._told.tell(outcome)
        changed = any(outcome.changed for outcome in outcomes.values())
        first = self._outcomes is None
        if first and changed:
            self._changed_in = self._hardware.readings  # only the reading after it ends that, and tells
        self._outcomes = outcomes
        if changed:
            self._hardware.request_scan()
        if first or told != {uuid: (each.state, each.message) for uuid, each in outcomes.items()}:
            self._changed.tell()
        return all(outcome.state.settled for outcome in outcomes.values())

    def _was_read(self) -> None:
        if self._changed_in is not None and self._hardware.readings > self._changed_in:
            self._changed_in = None
            self._changed.tell()

    def _one(self, asked: GpuLayout, before: LayoutOutcome | None) -> LayoutOutcome:
        with self._claims.try_gpu(asked.gpu.uuid) as held:
            if held:
                running = holders(asked.gpu, self._claims.entries(), self._policy.boot_id)
                return bring_about(asked, self._mig, running)
        name, message = gpu_name(asked.gpu.minor), "a claim is being prepared or unprepared on it"
        return before or LayoutOutcome(name, asked.name, LayoutState.WAITING, message)


def _condition(outcomes: Sequence[LayoutOutcome]) -> Condition:
    open_ones = [outcome for outcome in outcomes if not outcome.state.settled]
    said = "; ".join(str(outcome) for outcome in (open_ones or outcomes) if outcome.message)
    return Condition.model_validate(
        {
            "type": MIG_LAYOUT_APPLIED,
            "status": "False" if open_ones else "True",
            "reason": str(open_ones[0].state if open_ones else LayoutState.APPLIED),
            "message": shortened(said),
        }
    )
