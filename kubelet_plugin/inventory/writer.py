"""Owns this node's NodeInventory: makes it, keeps its status true, answers the controller's challenge.

One thread compares what the status should say with what the API server has, and writes the difference; when there is
none, nothing is written, also after a restart. The answer to a challenge is given only while the kubelet is connected.

Two instances of a rolling update must not write in turns. The instance named in ``status.registration`` writes; the
newer one takes over when the kubelet registers it, or when nobody did for a while. Both may answer a challenge: each
answers only while the kubelet can reach it, and the answer is the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from api.node_inventory import API_VERSION, KIND, MIG_LAYOUT_APPLIED, Condition, Registration
from dra_driver.kube.backoff import Backoff
from dra_driver.kube.interface import (
    NODE_INVENTORIES,
    NODES,
    AlreadyExists,
    ApiError,
    Conflict,
    KubeApi,
    NotFound,
    Obj,
)
from dra_driver.kube.reflector import Reflector
from dra_driver.observability.loops import Loop
from kubelet_plugin.endpoint.connection import RegistrationState
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.inventory.status import (
    KUBELET_REGISTERED,
    PluginInstance,
    build_status,
    merge_patch,
    registration_block,
    registration_condition,
    with_times,
)

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0  # for the kubelet to register us before the status says that it did not
_ANSWER_POLL_SECONDS = 0.5
_FIRST_READING_SECONDS = 5.0
_LIMIT_SECONDS = 120.0  # a look at the object is three requests, each with its own time limit
_FIRST_LAYOUTS_SECONDS = 30.0  # seven GPU instances with their compute instances take a second each


class HardwareSource(Protocol):
    @property
    def state(self) -> HardwareState: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class ConnectionSource(Protocol):
    @property
    def state(self) -> RegistrationState: ...
    def alive(self) -> bool: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class LayoutSource(Protocol):
    """Named MIG layouts (``kubelet_plugin.kinds.mig.layout_applier.LayoutApplier``)."""

    @property
    def pending(self) -> bool:
        """Whether the GPUs are about to get their layouts for the first time."""
        ...

    def condition(self) -> Condition | None: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class SpecReader(Protocol):
    """Who wants to know what the controller says of this node
    (``kubelet_plugin.inventory.sharing.NodeSharingInForce``)."""

    def saw(self, inventory: Obj) -> None:
        """Called with the newest NodeInventory; it must not block."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``grace``: see above. ``first_reading``: how long to hold the status back for the first reading,
    ``first_layouts``: and for MIG layouts."""

    grace: float = _GRACE_SECONDS
    answer_poll: float = _ANSWER_POLL_SECONDS
    first_reading: float = _FIRST_READING_SECONDS
    first_layouts: float = _FIRST_LAYOUTS_SECONDS


def _wall_clock() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class InventoryWriter:
    """One thread, ``inventory``, and one reflector on our own object, between start and stop."""

    def __init__(
        self,
        api: KubeApi,
        node_name: str,
        plugin: PluginInstance,
        hardware: HardwareSource,
        connection: ConnectionSource,
        *,
        registry: str,
        layouts: LayoutSource | None = None,
        reader: SpecReader | None = None,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], str] = _wall_clock,
    ) -> None:
        """``registry``: the kubelet's plugin folder, for messages."""
        self._api = api
        self._node_name = node_name
        self._plugin = plugin
        self._hardware = hardware
        self._connection = connection
        self._registry = registry
        self._layouts = layouts
        self._reader = reader
        self._timing = timing or Timing()
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._known: Obj | None = None
        self._claimed_registrations = 0
        self._owned_once = False
        self._started_at = 0.0
        self.loop = Loop(
            "inventory",
            self._step,
            limit=_LIMIT_SECONDS,
            doing="writing the NodeInventory",
            retry=Backoff(0.5, 30.0),
            expected=(ApiError,),
        )
        self.written = threading.Event()  # set once the status on the server was ours and complete
        self.writes = 0
        self.reflector = Reflector(
            api, NODE_INVENTORIES, self._object_changed, field_selector=f"metadata.name={node_name}"
        )
        hardware.on_change(self.loop.wake)
        connection.on_change(self.loop.wake)
        if layouts is not None:
            layouts.on_change(self.loop.wake)

    def start(self) -> None:
        self._started_at = self._clock()
        self.loop.start()
        self.reflector.start()

    def stop(self, timeout: float = 5.0) -> None:
        """1. End the writing. 2. End the watch. The object stays: a successor goes on with it."""
        if not self.loop.stop(timeout):
            logger.warning("the NodeInventory is still being written %.0f s after stop", timeout)
        self.reflector.stop()

    def _step(self) -> float | None:
        """Brings the object up to date; returns seconds until it must be looked at without an event, None for never."""
        hardware = self._hardware.state
        waited = self._clock() - self._started_at
        if not hardware.read and waited < self._timing.first_reading:
            return self._timing.first_reading - waited
        if hardware.machine is not None and self._layouts_pending() and waited < self._timing.first_layouts:
            return self._timing.first_layouts - waited
        known = self._object()
        status: dict[str, Any] = known.get("status") or {}
        challenge = (known.get("spec") or {}).get("challenge")
        answer = status.get("answer")
        unanswered = bool(challenge) and challenge != answer
        alive = unanswered and self._connection.alive()
        if alive:
            answer = challenge
        registrations = self._connection.state.registrations
        owns = self._owns(status, registrations, waited)
        if owns:
            wanted = self._wanted(hardware, status, answer, waited)
        else:
            wanted = {**status, "answer": answer} if answer else status
        if not self._write(known, merge_patch(status, wanted), challenge if alive else None):
            return 0.0
        if owns:
            self._claimed_registrations = registrations
        self.written.set()
        if unanswered and not alive:
            return self._timing.answer_poll
        return max(self._timing.grace - waited, 0.05) if waited < self._timing.grace else None

    def _layouts_pending(self) -> bool:
        return self._layouts is not None and self._layouts.pending

    def _layout_condition(self, status: dict[str, Any]) -> Condition | None:
        if self._layouts is None:
            return None
        return _present_condition(status, MIG_LAYOUT_APPLIED) if self._layouts.pending else self._layouts.condition()

    def _owns(self, status: dict[str, Any], registrations: int, waited: float) -> bool:
        writer = (status.get("registration") or {}).get("pluginInstance")
        owns = (
            not writer
            or writer == self._plugin.instance
            or registrations > self._claimed_registrations
            or (not self._owned_once and waited >= self._timing.grace)
        )
        self._owned_once = self._owned_once or owns
        return owns

    def _wanted(
        self, hardware: HardwareState, status: dict[str, Any], answer: str | None, waited: float
    ) -> dict[str, Any]:
        state = self._connection.state
        said = bool(state.registrations or state.refusals)
        present = status.get("registration")
        condition: Condition | None
        if said or waited >= self._timing.grace:
            registration = registration_block(self._plugin, state)
            condition = registration_condition(state, self._registry)
        else:
            # A restart: what the last instance wrote stays until the kubelet has spoken, or had the time to.
            registration = Registration.model_validate(present) if present else registration_block(self._plugin, state)
            condition = _present_condition(status, KUBELET_REGISTERED)
        wanted = build_status(hardware, registration, condition, answer, self._layout_condition(status)).to_wire()
        if hardware.machine is None and (hardware.tentative or not hardware.read) and "machine" in status:
            # A restart, and the first reading failed or hangs: as in a plugin that runs on, nothing is withdrawn yet.
            wanted["machine"] = status["machine"]
        return with_times(wanted, status, self._now())

    def _write(self, known: Obj, patch: dict[str, Any], answered: str | None) -> bool:
        """Write what ``known`` lacks; False when somebody else has written since, and it must be looked at again.

        The patch names the version it was made for: made for an older one, it could leave a status that is half of each
        of two instances.
        """
        if not patch:
            return True
        body = {"metadata": {"resourceVersion": known["metadata"]["resourceVersion"]}, "status": patch}
        try:
            written = self._api.patch(NODE_INVENTORIES, self._node_name, body, subresource="status")
        except Conflict:
            self._forget()
            return False
        except NotFound:
            self._forget()
            raise
        self.writes += 1
        self._remember(written)
        if answered:
            logger.info("answered the controller's challenge")
        logger.debug("wrote NodeInventory status", extra={"fields": ",".join(patch)})
        return True

    def _object(self) -> Obj:
        """The object as last seen; read or created when it was not seen yet, or is gone."""
        with self._lock:
            known = self._known
        if known is not None:
            return known
        node = self._node()
        try:
            found = self._api.get(NODE_INVENTORIES, self._node_name)
        except NotFound:
            found = self._create(node)
        owner = _owner(node)
        owners = found["metadata"].get("ownerReferences") or []
        if all(reference.get("uid") != owner["uid"] for reference in owners):
            # The Node was made anew; the old owner's disappearance would take the object with it.
            found = self._api.patch(NODE_INVENTORIES, self._node_name, {"metadata": {"ownerReferences": [owner]}})
        return self._remember(found)

    def _node(self) -> Obj:
        try:
            return self._api.get(NODES, self._node_name)
        except NotFound as error:
            raise NotFound(f"there is no Node {self._node_name}; is --node-name right?") from error

    def _create(self, node: Obj) -> Obj:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self._node_name, "ownerReferences": [_owner(node)]},
            "spec": {},
        }
        try:
            created = self._api.create(NODE_INVENTORIES, body)
        except AlreadyExists:
            return self._api.get(NODE_INVENTORIES, self._node_name)
        except NotFound as error:
            raise NotFound("the API server has no NodeInventory resource; install the driver's CRDs") from error
        logger.info("created NodeInventory", extra={"node": self._node_name})
        return created

    def _object_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            self._forget()
        else:
            self._remember(new)
        self.loop.wake()

    def _remember(self, obj: Obj) -> Obj:
        """Keep the newer of what is known and ``obj``: the watch may deliver what is older than our own write."""
        with self._lock:
            if self._known is None or _is_newer(obj, self._known):
                self._known = obj
                if self._reader is not None:
                    self._reader.saw(obj)
            return self._known

    def _forget(self) -> None:
        with self._lock:
            self._known = None


def _owner(node: Obj) -> dict[str, Any]:
    metadata = node["metadata"]
    return {"apiVersion": "v1", "kind": "Node", "name": metadata["name"], "uid": metadata["uid"]}


def _present_condition(status: dict[str, Any], kind: str) -> Condition | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            return Condition.model_validate({**condition, "lastTransitionTime": ""})
    return None


def _is_newer(obj: Obj, known: Obj) -> bool:
    """By resourceVersion, which is a growing number (KEP-5504); another UID, or a version of another form, is newer."""
    ours, theirs = known["metadata"], obj["metadata"]
    versions = (ours.get("resourceVersion", ""), theirs.get("resourceVersion", ""))
    if ours.get("uid") != theirs.get("uid") or not all(version.isdigit() for version in versions):
        return True
    return int(versions[1]) >= int(versions[0])
