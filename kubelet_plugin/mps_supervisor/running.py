"""A group as the supervisor knows it, and the words for what differs and for what failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dra_driver.mps.errors import GroupFailed
from dra_driver.mps.group import GroupState, GroupStatus, MpsGroup, MpsShare, ShareStatus
from dra_driver.processes import Process


@dataclass(frozen=True, slots=True)
class Running:
    """A group as it is known. ``clients``: process ids on the host. ``leaving``: shares that are being removed."""

    group: MpsGroup
    state: GroupState
    message: str = ""
    daemon: Process | None = None
    clients: frozenset[int] = frozenset()
    shares: tuple[ShareStatus, ...] = ()
    leaving: frozenset[str] = frozenset()

    @property
    def status(self) -> GroupStatus:
        pid = self.daemon.pid if self.daemon is not None else 0
        return GroupStatus(self.group, self.state, self.message, pid, len(self.clients), self.shares)

    def dead(self, message: str) -> Running:
        """The same without a daemon that could be looked at."""
        return Running(self.group, GroupState.DEAD, message, shares=self.shares, leaving=self.leaving)

    def share(self, name: str) -> MpsShare | None:
        return next((each.share for each in self.shares if each.share.name == name), None)


def difference(runs: MpsGroup | MpsShare, wanted: MpsGroup | MpsShare, fields: Sequence[str]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')} {getattr(runs, name)}, asked for is {getattr(wanted, name)}"
        for name in fields
        if getattr(runs, name) != getattr(wanted, name)
    )


def failed(what: str, group_id: str, error: OSError) -> GroupFailed:
    where = f" ({error.filename})" if error.filename else ""
    return GroupFailed(
        f"{what} of MPS group {group_id} failed: {error.strerror or error}{where}",
        hint="the supervisor needs root, CAP_SYS_ADMIN and the host's plugin folder",
    )
