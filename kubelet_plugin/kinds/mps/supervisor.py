"""The MPS supervisor as this room needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dra_driver.mps.group import GroupStatus, MpsGroup, MpsShare
from dra_driver.observability.loops import Loop

Told = Callable[[tuple[GroupStatus, ...]], None]


class Watch(Protocol):
    """``dra_driver.mps.client.GroupWatch``."""

    loop: Loop

    def start(self) -> None: ...
    def stop(self) -> bool: ...


class Supervisor(Protocol):
    """``dra_driver.mps.client.SupervisorClient``. Thread-safe; every call has an end and raises ``HardwareError``."""

    def start(self, group: MpsGroup) -> GroupStatus:
        """Returns when the group's daemon has answered; at once when the same group runs. One that runs with other
        settings under the same id is an error."""
        ...

    def stop(self, group_id: str) -> None:
        """Returns when nothing of the group is left. An id that nobody knows is success."""
        ...

    def groups(self) -> tuple[GroupStatus, ...]: ...

    def put_share(self, group_id: str, share: MpsShare) -> GroupStatus:
        """Of a group of protocol 3. Returns when the limits were read back; at once when the same share is there."""
        ...

    def remove_share(self, group_id: str, name: str) -> None:
        """Returns when nothing of it is left. A name or a group that nobody knows is success."""
        ...

    def protocols(self) -> tuple[int, ...]:
        """Which protocols the node's MPS programs speak."""
        ...

    @property
    def absence(self) -> str:
        """That the node has none, for people; empty where one serves, or served."""
        ...

    def watch(self, listener: Told, /) -> Watch:
        """``listener`` is told the complete list whenever there is a new one, once the watch is started."""
        ...
