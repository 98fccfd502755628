"""Writes how fractions are fenced into the ``status.devices`` of their claims, and tells when a fence has gone.

By server-side apply, so that what others write there stays (KEP-4817). It never fails a prepare: what cannot be written
is tried again, and where this is not allowed at all, said once. A fence that has gone is an Event on the claim's pods,
too; the taint of its device is the matter of what has gone (``kinds.mps.told`` for a daemon).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from dra_driver.errors import DriverError, StateError
from dra_driver.kube.backoff import Backoff
from dra_driver.kube.interface import RESOURCE_CLAIMS, ApiError, Forbidden, KubeApi, NotFound, PatchType
from dra_driver.observability.loops import Loop
from dra_driver.text import shortened
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.model import ClaimRef, Failures, Operation
from kubelet_plugin.kinds.fence.status import GONE, FenceState, Troubles, fence_states, status_devices
from kubelet_plugin.telling.failures import FailureEvent

logger = logging.getLogger(__name__)

_MANAGER: Final = "gpu-dra-kubelet-plugin"
_LIMIT_SECONDS = 120.0
_LOOK_AGAIN_SECONDS = 30.0
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 60.0


class Events(Protocol):
    """``telling.failure_events.FailureEvents``."""

    def tell(self, claim: ClaimRef, event: FailureEvent) -> None: ...


def _wall_clock() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class FenceStatuses:
    """Thread ``fence-status`` between start and stop; a ``dra_service.CallObserver``. ``entries``: the checkpoint as it
    is now; may raise ``StateError``. ``look``: before each round, whether fences are still there; it may wait."""

    def __init__(
        self,
        api: KubeApi,
        driver: str,
        boot_id: str,
        entries: Callable[[], Mapping[str, ClaimEntry]],
        trouble: Troubles,
        events: Events,
        *,
        look: Callable[[], object] = bool,
        now: Callable[[], str] = _wall_clock,
    ) -> None:
        self._api = api
        self._driver = driver
        self._boot_id = boot_id
        self._entries = entries
        self._trouble = trouble
        self._events = events
        self._look = look
        self._now = now
        self._written: dict[str, tuple[FenceState, ...]] = {}  # by claim UID
        self._gone: set[tuple[str, str, str]] = set()  # claim UID, device and share of which an Event tells
        self._forbidden = False
        self._found: tuple[tuple[ClaimRef, FenceState], ...] = ()
        self.loop = Loop(
            "fence-status",
            self._round,
            limit=_LIMIT_SECONDS,
            doing="telling how fractions are fenced",
            retry=Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS),
            expected=(ApiError, DriverError),
        )

    @property
    def found(self) -> tuple[tuple[ClaimRef, FenceState], ...]:
        """Of each fraction of a prepared claim, as the last round has found it."""
        return self._found

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        if not self.loop.stop(timeout):
            logger.warning("the status of claims is left as it is: the API server does not answer")

    def started(self, operation: Operation) -> None:
        """Nothing to tell yet."""

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        self.loop.wake()

    def look_again(self) -> None:
        """Something may have happened to a fence. Returns at once."""
        self.loop.wake()

    def _round(self) -> float | None:
        self._look()
        try:
            entries = self._entries()
        except StateError as error:
            logger.warning("cannot tell how fractions are fenced: %s", error)
            return _LOOK_AGAIN_SECONDS
        prepared = {uid: entry for uid, entry in entries.items() if entry.is_prepared(self._boot_id)}
        self._written = {uid: states for uid, states in self._written.items() if uid in prepared}
        self._gone = {key for key in self._gone if key[0] in prepared}
        failed: ApiError | None = None
        found: list[tuple[ClaimRef, FenceState]] = []
        for uid, entry in prepared.items():
            self.loop.beat()
            states = fence_states(entry, self._trouble)
            found += ((entry.ref, state) for state in states)
            self._tell_gone(entry, states)
            if states and self._written.get(uid) != states:
                try:
                    self._write(entry.ref, states)
                except ApiError as error:  # one claim must not hold up the others
                    failed = error
                else:
                    self._written[uid] = states
        self._found = tuple(found)
        if failed is not None:
            raise failed
        return _LOOK_AGAIN_SECONDS if self._found else None

    def _tell_gone(self, entry: ClaimEntry, states: tuple[FenceState, ...]) -> None:
        for state in states:
            key = (entry.ref.uid, state.fence.device, state.fence.share_id)
            if state.reason != GONE:
                self._gone.discard(key)
            elif key not in self._gone:
                self._gone.add(key)
                what = f"nothing holds the share of {state.fence.device} to its limits any more: {state.message}"
                self._events.tell(entry.ref, FailureEvent("Warning", GONE, shortened(what)))

    def _write(self, claim: ClaimRef, states: tuple[FenceState, ...]) -> None:
        try:
            found = self._api.get(RESOURCE_CLAIMS, claim.name, claim.namespace)
            if found["metadata"].get("uid") != claim.uid:
                return
            before = (found.get("status") or {}).get("devices") or []
            body = {
                "apiVersion": RESOURCE_CLAIMS.api_version,
                "kind": RESOURCE_CLAIMS.kind,
                "metadata": {"name": claim.name, "namespace": claim.namespace, "uid": claim.uid},
                "status": {"devices": status_devices(states, self._driver, before, self._now())},
            }
            self._api.patch(
                RESOURCE_CLAIMS,
                claim.name,
                body,
                claim.namespace,
                patch_type=PatchType.APPLY,
                subresource="status",
                field_manager=_MANAGER,
                force=True,
            )
        except NotFound:
            return  # it has ended
        except Forbidden as error:
            if not self._forbidden:
                self._forbidden = True
                logger.warning(
                    "how fractions are fenced is not told in claims: %s; let the plugin patch resourceclaims/status, "
                    "and on Kubernetes 1.36 and newer resourceclaims/driver (associated-node:patch)",
                    error.message,
                )
            return
        self._forbidden = False
