"""An MPS server on a device for as long as its memory is measured, and whether the node has MPS at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from api.fractions import SharingBackend
from dra_driver.errors import HardwareError
from dra_driver.mps.group import LEGACY, NAMED, GroupStatus, MpsGroup
from kubelet_plugin.kinds.fence.facts import Divisible
from kubelet_plugin.kinds.fractions import NodeFences
from kubelet_plugin.kinds.gpus import place_word

_PREFIX = "measure-"
_GRACE_SECONDS = 60.0


class Groups(Protocol):
    """``dra_driver.mps.client.SupervisorClient``. Calls have an end and raise ``HardwareError``."""

    @property
    def absence(self) -> str: ...

    def start(self, group: MpsGroup) -> GroupStatus: ...
    def stop(self, group_id: str) -> None: ...
    def groups(self) -> tuple[GroupStatus, ...]: ...


class MpsServing:
    """A ``measuring.Serving``: nothing where the node has no MPS."""

    def __init__(self, supervisor: Groups, fences: NodeFences) -> None:
        self._supervisor = supervisor
        self._fences = fences

    def tidy(self) -> None:
        """Stop what a killed plugin has left. Raises ``HardwareError``."""
        for status in () if self._supervisor.absence else self._supervisor.groups():
            if status.group.id.startswith(_PREFIX):
                self._supervisor.stop(status.group.id)

    @contextmanager
    def __call__(self, device: Divisible, /) -> Iterator[None]:
        backends = self._fences.backends()
        if not {SharingBackend.MPS, SharingBackend.MPS_NAMESPACE} & set(backends):
            yield
            return
        whole = device.profile is None
        group = MpsGroup(
            id=f"{_PREFIX}{place_word(device.gpu.uuid, device.name)}",
            devices=(device.uuid,),
            exclusive_gpus=(device.uuid,) if whole else (),
            protocol=NAMED if whole and SharingBackend.MPS_NAMESPACE in backends else LEGACY,
            serve=True,
        )
        try:
            self._supervisor.start(group)
            yield
        finally:
            self._supervisor.stop(group.id)


class Speaking(Protocol):
    @property
    def absence(self) -> str: ...

    def protocols(self) -> tuple[int, ...]: ...


class MpsPresence:
    """What of MPS the node has to fence with; None while that cannot be told.

    A supervisor that is exchanged is away for a moment, and its daemons stay. So one that has been there counts as gone
    only after a while; till then what it fences is offered as before, and a prepare that needs it is tried again.
    """

    def __init__(
        self, supervisor: Speaking, *, grace: float = _GRACE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._supervisor = supervisor
        self._grace = grace
        self._clock = clock
        self._away_since: float | None = None

    def is_there(self) -> bool | None:
        if not self._supervisor.absence:
            self._away_since = None
            return True
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        return False if now - self._away_since >= self._grace else None

    def speaks_named(self) -> bool | None:
        """Whether there are namespaces."""
        there = self.is_there()
        if not there:
            return there
        try:
            return NAMED in self._supervisor.protocols()
        except HardwareError:
            return None  # it comes back, with the same programs as a rule
