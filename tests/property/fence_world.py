"""A node whose fractions are under random treatment: claims come and go, the plugin is killed, the MPS supervisor is
away, loses groups or has sick ones, the node reboots, and what fences there are changes.

The world knows what must be there. Everything that happens is a method of :class:`FenceWorld`; ``step`` picks one. The
plugin's work runs on this thread, so that a kill is an exception at any of its moments: before and after each call that
changes something at the supervisor, and each write of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import ClassVar

from dra_driver.mps.group import GroupState
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.kinds.fence.step import FenceShare, fences_in
from tests.kubelet_plugin.kinds.fence.claims import variables
from tests.kubelet_plugin.kinds.mps.fake import failed
from tests.property.fence_claims import Part, Wanted, random_wanted, why_not
from tests.property.fence_node import MPS, NONE, fence_node
from tests.property.killing import Clockwork
from tests.property.plugin_world import PluginWorld

_MOST_CLAIMS = 10


@dataclass
class FenceWorld(PluginWorld[Wanted]):
    """``seed`` decides everything. ``patch`` replaces a function by its dotted name for as long as the world lives."""

    most_moments: ClassVar[int] = 16

    folder: Path
    seed: int
    patch: Callable[[str, object], None]
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.clockwork = Clockwork()
        self.clockwork.on_files(self.patch)
        self.node, self.supervisor, self.found, self.targets = fence_node(self.folder, self.clockwork)
        self.boot = 1
        self.claims: dict[str, Wanted] = {}
        self.number = self.kills = self.prepared = self.lost = 0
        self.engine = self._start()

    # -- what happens ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        acts: list[tuple[int, Callable[[], object]]] = [
            (30, self.prepare_new),
            (9, self.prepare_again),
            (26, self.unprepare),
            (24, self.kill_in_something),
            (4, self.restart),
            (5, self.supervisor_goes_or_comes),
            (5, self.group_is_lost),
            (4, self.group_is_sick),
            (4, self.daemons_do_not_start),
            (3, self.other_fences),
            (1, self.reboot),
            (6, self.settle),
        ]
        weights, choices = zip(*acts, strict=True)
        self.random.choices(choices, weights)[0]()
        self.check()

    def prepare_new(self) -> None:
        if len(self.claims) < _MOST_CLAIMS:
            self._do(Operation.PREPARE, self._new_claim())

    def supervisor_goes_or_comes(self) -> None:
        self.supervisor.away = not self.supervisor.away
        self.history.append(f"the supervisor {'goes' if self.supervisor.away else 'comes'}")

    def group_is_lost(self) -> None:
        if groups := self.supervisor.ids():
            self.lost += 1
            self.supervisor.lose(self.random.choice(groups))
            self.history.append(f"lost a group of {groups}")

    def group_is_sick(self) -> None:
        if groups := self.supervisor.ids():
            group, state = self.random.choice(groups), self.random.choice([GroupState.DEAD, GroupState.WEDGED])
            self.supervisor.become(group, state)
            self.history.append(f"{group} is {state}")

    def daemons_do_not_start(self) -> None:
        self.supervisor.broken = None if self.supervisor.broken else failed("any")
        self.history.append(f"daemons {'do not start' if self.supervisor.broken else 'start'}")

    def other_fences(self) -> None:
        self.found.backend = NONE if self.found.backend is MPS else MPS
        self.history.append(f"fenced by {self.found.backend}")

    def reboot(self) -> None:
        """Daemons are gone with all that is theirs; the CDI folder may be a disk's."""
        self.history.append("reboot")
        self.engine.stop(0.0)
        for group in self.supervisor.ids():
            self.supervisor.lose(group)
        if self.random.random() < 0.5:
            for uid in self.node.cdi.claim_uids():
                self.node.cdi.remove(uid)
        self.boot += 1
        self.engine = self._start()

    def settle(self) -> None:
        """Nothing fails any more, and the kubelet tries everything again: then all must be exactly as it should."""
        self.history.append("settle")
        self.supervisor.away, self.supervisor.broken = False, None
        self.supervisor.states.clear()
        for uid in list(self.claims):
            if not self._do(Operation.PREPARE, uid):
                others = [self.claims[each] for each in self.engine.entries() if each != uid]
                ways = {each: fence.backend for each in self.engine.entries() for fence in self._fences(each)}
                assert why_not(self.claims[uid], others, ways, self.found.backend), f"{uid} is refused for no reason"
                assert self._do(Operation.UNPREPARE, uid), f"{uid} cannot be unprepared although all works"
                self._forget(uid)
        self.check_settled()

    def finish(self) -> None:
        """All claims end."""
        self.settle()
        for uid in list(self.claims):
            assert self._do(Operation.UNPREPARE, uid)
            self._forget(uid)
        self.check_settled()
        assert self.supervisor.ids() == []
        assert not self.node.cdi.claim_uids()

    def story(self) -> str:
        return self._story(f"seed {self.seed}")

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """At any time: nothing is there that no record tells of, and what is prepared has what it is to have."""
        entries = self.engine.entries()
        now = {uid: entry for uid, entry in entries.items() if entry.boot_id == self._boot_id}
        assert set(self.supervisor.ids()) <= {group for entry in now.values() for group in _groups(entry)}
        assert set(self.node.cdi.claim_uids()) <= set(entries)
        for uid, entry in now.items():
            if entry.state is ClaimState.COMPLETED:
                self._check_prepared(self.claims[uid], entry)
        self._check_together(now)

    def check_settled(self) -> None:
        entries = self.engine.entries()
        assert set(entries) == set(self.claims)
        assert all(entry.is_prepared(self._boot_id) for entry in entries.values())
        assert set(self.node.cdi.claim_uids()) == set(self.claims)
        by_mps = [
            each for each in self.claims.values() if any(fence.backend is MPS for fence in self._fences(each.uid))
        ]
        groups = {part.target.group: part.target for each in by_mps for part in each.fenced}
        assert set(self.supervisor.ids()) == set(groups)
        for status in self.supervisor.now():
            target, group = groups[status.group.id], status.group
            whole = (target.uuid,) if target.uuid == target.gpu else ()
            assert (group.devices, group.exclusive_gpus) == ((target.uuid,), whole)
            assert (group.active_thread_percentage, dict(group.pinned_memory_mib)) == (None, {}), (
                "limits are the clients'"
            )
        assert self.node.left_overs() == []

    def _check_prepared(self, wanted: Wanted, entry: ClaimEntry) -> None:
        """Each of its fractions is fenced, with the limits of the allocation, in the record and in the container."""
        fences = fences_in(entry.steps)
        assert {fence.backend for fence in fences} <= ({MPS, NONE} if wanted.unfenced else {MPS})
        expected = [
            (
                wanted.uid,
                part.target.name,
                part.share,
                part.target.gpu,
                part.target.uuid,
                part.memory,
                part.memory,
                part.compute,
                wanted.low,
            )
            for part in wanted.fenced
        ]
        assert [_facts(fence) for fence in fences] == expected
        by_mps = [part for part, fence in zip(wanted.fenced, fences, strict=True) if fence.backend is MPS]
        assert set(_groups(entry)) == {part.target.group for part in by_mps}
        assert variables(self.node, wanted.uid) == _environment(by_mps, low=wanted.low)

    def _check_together(self, entries: dict[str, ClaimEntry]) -> None:
        """Holders of one device have no more than there is, and all of them use it in one way."""
        prepared = [entry for entry in entries.values() if entry.state is ClaimState.COMPLETED]
        for target in self.targets:
            fences = [each for entry in prepared for each in fences_in(entry.steps) if each.device == target.name]
            assert sum(fence.memory for fence in fences) <= target.memory
            assert sum(fence.compute for fence in fences) <= 100
            wanted = [self.claims[entry.ref.uid] for entry in prepared]
            alone = sum(target in each.whole for each in wanted)
            shares = sum(part.target == target for each in wanted for part in each.parts)
            assert alone + bool(shares) <= 1, f"{target.name} is held as a whole, and not alone"
            by_mps = sum(fence.backend is MPS for fence in fences)
            assert by_mps in (0, shares), f"{target.name} is used by MPS, and without"

    # -- help --------------------------------------------------------------------------------------------------------

    def _new_claim(self) -> str:
        self.number += 1
        uid = f"c{self.number}"
        held = [self.claims[each] for each in self.engine.entries()]
        self.claims[uid] = random_wanted(self.random, uid, self.targets, held)
        self.node.claims.add(self.claims[uid].allocated())
        return uid

    def _fences(self, uid: str) -> tuple[FenceShare, ...]:
        return fences_in(self.engine.entries()[uid].steps)


def _groups(entry: ClaimEntry) -> Iterator[str]:
    return (step.arguments["group"] for step in entry.steps if step.kind == "MpsGroup")


def _facts(fence: FenceShare) -> tuple[object, ...]:
    return (
        fence.claim_uid,
        fence.device,
        fence.share_id,
        fence.gpu_uuid,
        fence.uuid,
        fence.memory,
        fence.memory_limit,
        fence.compute,
        fence.low_priority,
    )


def _environment(by_mps: list[Part], *, low: bool) -> dict[str, str]:
    """What of MPS the containers of a claim are told. No claim has two fences of MPS."""
    if not by_mps:
        return {}
    (part,) = by_mps
    return {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps", **part.limits(low=low)}
