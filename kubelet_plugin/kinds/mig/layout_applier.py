"""Keeps GPUs to the layouts that rules ask for: when the plugin starts, when hardware changes, when a claim ends.

One thread. A GPU is changed only under its lock, while no claim in the checkpoint holds it; a prepare that comes
meanwhile waits for the lock and then sees what is there. What cannot be done now is tried again, after ever longer
pauses, and is told as a condition of the NodeInventory and an Event on the Node.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from api.mig_policy import MigSettings
from api.node_inventory import MIG_LAYOUT_APPLIED, Condition
from dra_driver.devices.naming import gpu_name
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from dra_driver.kube.backoff import Backoff
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.endpoint.dra_service import Failures
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.kinds.mig.layout import GpuLayout, LayoutOutcome, LayoutState, asked_layouts, bring_about, holders
from kubelet_plugin.telling.failures import Operation

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 1024
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0


class Claims(Protocol):
    """What is needed of the prepare engine. Both raise ``StateError``."""

    def entries(self) -> Mapping[str, ClaimEntry]: ...

    def try_gpu(self, gpu_uuid: str) -> AbstractContextManager[bool]:
        """The lock of a GPU, if nobody has it; tells whether it is held now."""
        ...


class Hardware(Protocol):
    """What is needed of the hardware watch."""

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
        self._listener = listener
        self._backoff = Backoff(retry, max(retry, _LONGEST_RETRY_SECONDS))
        self._outcomes: dict[str, LayoutOutcome] | None = None  # by GPU UUID; None before the first pass
        self._reading_due = False
        self._listeners: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if self.wanted:
            hardware.on_change(self._wake.set)
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
        return self.wanted and (self._outcomes is None or self._reading_due)

    def condition(self) -> Condition | None:
        """Condition MigLayoutApplied; None where no GPU has a layout."""
        outcomes = self._outcomes
        return _condition(list(outcomes.values())) if outcomes else None

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called when the condition or ``pending`` may have changed. It must not block."""
        self._listeners.append(listener)

    def start(self) -> None:
        if self.wanted:
            self._thread = threading.Thread(target=self._run, name="mig-layouts", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; a GPU that is being changed is left to the next process after ``timeout`` seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    # -- CallObserver: a claim that ended may be what a GPU waited for ------------------------------------------------

    def started(self, operation: Operation) -> None:
        """Nothing to do yet."""

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        if operation is Operation.UNPREPARE:
            self._wake.set()

    # -- the work -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                settled = self.run_once()
            except DriverError as error:  # no hardware to read, no checkpoint
                logger.warning("MIG layouts cannot be looked at, trying again: %s", error)
                settled = False
            except Exception:
                # Thread boundary: a GPU of an odd form must not leave the others without their layout.
                logger.exception("applying MIG layouts broke, trying again")
                settled = False
            if settled:
                self._backoff.reset()
            self._wake.wait(None if settled else self._backoff.next_delay())

    def run_once(self) -> bool:
        """One pass over all GPUs with a layout, on the calling thread. False when something is left to try again.

        Raises DriverError when there is no hardware or no checkpoint to look at.
        """
        before = self._outcomes or {}
        outcomes: dict[str, LayoutOutcome] = {}
        for asked in asked_layouts(self._hardware.machine(), self._policy, self._settings):
            if self._stopping.is_set():
                return False
            outcomes[asked.gpu.uuid] = self._one(asked, before.get(asked.gpu.uuid))
        told = {uuid: (each.state, each.message) for uuid, each in before.items()}
        for uuid, outcome in outcomes.items():
            if outcome.changed or told.get(uuid) != (outcome.state, outcome.message):
                self._listener.layout_outcome(outcome)
        changed = any(outcome.changed for outcome in outcomes.values())
        first = self._outcomes is None
        self._reading_due = first and changed
        self._outcomes = outcomes
        if changed:
            self._hardware.request_scan()
        if first or told != {uuid: (each.state, each.message) for uuid, each in outcomes.items()}:
            self._tell()
        return all(outcome.state.settled for outcome in outcomes.values())

    def _was_read(self) -> None:
        if self._reading_due:
            self._reading_due = False
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

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
            "message": said if len(said) <= _MAX_MESSAGE else said[: _MAX_MESSAGE - 3] + "...",
        }
    )
