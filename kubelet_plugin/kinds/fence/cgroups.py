"""The driver's own limit of memory, on the cgroup of each container that has the share (``memory_fence``).

There is nothing to limit before a container is made, so a prepare only makes sure that there can be a limit; the hook
in the edits has it set before the container's first process runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from api.driver_spec import DriverSpec
from api.fractions import SharingBackend
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.errors import HardwareError
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.kinds.fence.step import FenceShare, fences_in
from kubelet_plugin.kinds.fence.tools import FenceTool
from kubelet_plugin.memory_fence.edits import edits_for
from kubelet_plugin.memory_fence.keeper import Fences, LostFence
from kubelet_plugin.memory_fence.room import Room, build
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName
from kubelet_plugin.node.hardware import cgroup_hierarchy, host_proc

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
_CLEAR_SECONDS = 20.0  # a GPU that hangs must not hold an unprepare for ever; it is tried again


class PreparedShares(Fences):
    """A ``memory_fence.keeper.Fences``: what the checkpoint has. ``entries`` may raise ``StateError``."""

    def __init__(self) -> None:
        self.entries: Callable[[], Mapping[str, ClaimEntry]] = dict

    def limits_of(self, claim_uid: str, share_key: str) -> Sequence[ShareLimit] | None:
        entry = self.entries().get(claim_uid)
        if entry is None or entry.state is not ClaimState.COMPLETED:
            return None
        found = (each for each in fences_in(entry.steps) if each.backend is SharingBackend.CGROUP)
        return [_limit(each) for each in found if each.share_id == share_key] or None


class CgroupFences:
    """``memory_fence`` of this node between start and stop; where nobody wants it, and nothing of it is left, there is
    none. ``build`` may raise ``HardwareError`` and OSError."""

    def __init__(self, folder: Path, build: Callable[[Fences], Room], *, wanted: bool) -> None:
        """``folder``: the room's."""
        self._folder = folder
        self._build = build
        self._wanted = wanted
        self._room: Room | None = None
        self._problem = "no rule asks for fractions"
        self._lost: Mapping[tuple[str, str], str] = {}
        self.shares = PreparedShares()

    def start(self) -> None:
        """Once the hardware was read, and before claims are looked at."""
        if not self._wanted and not self._folder.exists():
            return
        try:
            self._room = self._build(self.shares)
        except (HardwareError, OSError) as error:
            self._problem = str(error)
            logger.warning("the memory of containers cannot be limited: %s", error)

    def serve(self) -> None:
        """Once it is known which claims are prepared. Raises OSError."""
        if self._room is not None:
            self._room.server.start()

    def stop(self) -> None:
        if self._room is not None:
            self._room.stop()

    @property
    def room(self) -> Room:
        """Raises HardwareError where there is none."""
        if self._room is None:
            raise HardwareError(f"the memory of containers cannot be limited on this node: {self._problem}")
        return self._room

    def look(self) -> bool:
        """Read the limits of all containers again; whether others are lost than before. It may wait, and passes over
        what does not answer."""
        if self._room is None:
            return False
        found = self._room.keeper.check(until=time.monotonic() + _LOOK_SECONDS)
        lost = {(each.share.claim_uid, each.share.key): _lost(each) for each in found}
        before, self._lost = self._lost, lost
        return before.keys() != lost.keys()

    def trouble(self, claim_uid: str, share_id: str) -> str:
        """As far as the last look told."""
        return self._lost.get((claim_uid, share_id), "")

    def unfenced(self) -> frozenset[str]:
        """Devices, by published name, of the shares whose limits are lost."""
        entries = self.shares.entries() if self._lost else {}
        return frozenset(
            fence.device
            for uid, entry in entries.items()
            for fence in fences_in(entry.steps)
            if (uid, fence.share_id) in self._lost
        )

    def has_limits(self, gpu_uuids: Iterable[str]) -> bool | None:
        """Whether the driver limits memory by cgroup here; None where it does not answer."""
        if self._room is None or self._room.limits.hierarchy_problem is not None:
            return False
        try:
            return any(self._room.limits.may_have_any(uuid) for uuid in gpu_uuids)
        except HardwareError as error:
            logger.info("whether memory can be limited by cgroup is not known: %s", error)
            return None


class CgroupLimits(FenceTool):
    def __init__(self, fences: CgroupFences) -> None:
        self._fences = fences

    def up(self, fence: FenceShare) -> bool:
        return self._fences.room.limits.why_not(fence.gpu_uuid) is None

    def put_up(self, fence: FenceShare) -> None:
        """Raises HardwareError."""
        if why := self._fences.room.limits.why_not(fence.gpu_uuid):
            raise HardwareError(
                f"the memory of {fence.device} cannot be limited for containers any more: {why}",
                hint="the driver has changed; delete the pod, so that its claim is allocated anew",
            )

    def take_down(self, fence: FenceShare) -> None:
        self._fences.room.keeper.clear(fence.claim_uid, fence.share_id, until=time.monotonic() + _CLEAR_SECONDS)

    def trouble(self, fence: FenceShare) -> str:
        return self._fences.trouble(fence.claim_uid, fence.share_id)

    def edits(self, fence: FenceShare) -> ContainerEdits:
        share = ShareName.of(fence.claim_uid, fence.share_id)
        return edits_for(share, [_limit(fence)], self._fences.room.hook)


def build_room(spec: DriverSpec, shares: Fences, boot_id: str) -> Room:
    """Of the node's plugin. Raises ``HardwareError``, OSError."""
    return build(
        spec.kubelet.plugins_directory / spec.driver_name,
        shares,
        hierarchy=cgroup_hierarchy(spec),
        boot_id=lambda: boot_id,
        proc=host_proc(spec),
    )


def _lost(lost: LostFence) -> str:
    found = lost.found
    now = "none" if found is None or not found.limited else f"soft {found.soft}, hard {found.hard} bytes"
    return (
        f"the memory limit of cgroup {lost.cgroup} on GPU {lost.gpu_uuid} is {now}, and was soft {lost.soft}, hard "
        f"{lost.hard} bytes; delete the pod to have it limited again"
    )


def _limit(fence: FenceShare) -> ShareLimit:
    return ShareLimit(fence.gpu_uuid, soft=fence.memory, hard=fence.memory_limit)
