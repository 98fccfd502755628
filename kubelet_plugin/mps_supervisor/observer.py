"""Two loops: one notices at once that a daemon has ended, the other asks daemons and servers now and then.

A look may hang as long as its questions may; so each group's is on a thread of its own, one at a time, and the others'
go on.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Collection, Iterable
from concurrent import futures
from dataclasses import replace
from typing import Protocol

from dra_driver.errors import DriverError
from dra_driver.mps.group import NAMED, GroupFolders, GroupState
from dra_driver.observability.loops import Loop
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor import log_files
from kubelet_plugin.mps_supervisor.canary import Canary
from kubelet_plugin.mps_supervisor.control import (
    CLIENTS,
    PERCENTAGE,
    SERVERS,
    STATUS,
    Declined,
    NoAnswer,
    whole_numbers,
)
from kubelet_plugin.mps_supervisor.daemon import Daemons
from kubelet_plugin.mps_supervisor.looks import Look, judged
from kubelet_plugin.mps_supervisor.named_answers import server_problem
from kubelet_plugin.mps_supervisor.running import Running
from kubelet_plugin.mps_supervisor.share_calls import ShareCalls
from kubelet_plugin.mps_supervisor.supervisor import Supervisor

logger = logging.getLogger(__name__)

_ENDS_SECONDS = 0.5  # a group that was started meanwhile is waited for after this
_ANSWER_SECONDS = 3.0
_LIMIT_SECONDS = 30.0
_THREADS = 16
_OBSERVED = (GroupState.READY, GroupState.WEDGED, GroupState.DEAD)


class Counts(Protocol):
    """Who counts what is seen (``metrics``)."""

    def looked(self, look: Look) -> None: ...


class Observer:
    """Between start and stop."""

    def __init__(
        self,
        supervisor: Supervisor,
        shares: ShareCalls,
        daemons: Daemons,
        canary: Canary,
        folders: Callable[[str], GroupFolders],
        counts: Counts,
        interval: float,
    ) -> None:
        self._supervisor = supervisor
        self._shares = shares
        self._daemons = daemons
        self._control = daemons.control
        self._canary = canary
        self._folders = folders
        self._counts = counts
        self._interval = interval
        self._under_way: dict[str, futures.Future[None]] = {}
        self._threads = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="mps-look")
        self.ends = Loop("mps-ends", self._wait_for_ends, limit=_LIMIT_SECONDS, doing="waiting for daemons that end")
        self.looks = Loop("mps-looks", self._look_at_all, limit=_LIMIT_SECONDS, doing="looking at MPS groups")

    def start(self) -> None:
        self.ends.start()
        self.looks.start()

    def stop(self) -> None:
        for loop in (self.ends, self.looks):
            loop.request_stop()
        for loop in (self.ends, self.looks):
            loop.join(_LIMIT_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _wait_for_ends(self) -> float:
        observed = [(each, each.daemon) for each in self._supervisor.groups() if each.state in _OBSERVED]
        daemons = {each.group.id: daemon for each, daemon in observed if daemon is not None}
        wait_for_an_end(daemons.values(), _ENDS_SECONDS)
        self._daemons.reap()
        for group_id, daemon in daemons.items():
            now = self._supervisor.find(group_id)
            if now is not None and now.state in _OBSERVED and now.daemon == daemon and not daemon.alive:
                message = f"its daemon, process {daemon.pid}, has ended; its clients are lost"
                self._supervisor.observed(now, now.dead(message))
        return 0.0

    def _look_at_all(self) -> float:
        self._under_way = {key: look for key, look in self._under_way.items() if not look.done()}
        for each in self._supervisor.groups():
            if each.state in _OBSERVED and each.daemon is not None and each.group.id not in self._under_way:
                self._under_way[each.group.id] = self._threads.submit(self._look_at, each, each.daemon)
        return self._interval

    def _look_at(self, before: Running, daemon: Process) -> None:
        try:
            log_files.cut(self._folders(before.group.id))
            look = self._look(before)
        except (DriverError, OSError) as error:
            logger.warning("MPS group %s cannot be looked at: %s", before.group.id, error)
            return
        if not daemon.alive:
            return  # the other loop tells it
        self._counts.looked(look)
        state, message = judged(look)
        shares = tuple(replace(each, message=look.shares.get(each.share.name, "")) for each in before.shares)
        after = replace(before, state=state, message=message, clients=look.clients, shares=shares)
        if not self._supervisor.observed(before, after):
            return
        can_be_mended = look.answer is None and not look.trouble and (look.shares or before.leaving)
        if can_be_mended and self._shares.mend(before.group.id):
            return
        if state is GroupState.WEDGED and not look.clients:
            self._supervisor.recycle(before.group.id)

    def _look(self, before: Running) -> Look:
        """Raises DriverError, OSError."""
        return self._look_at_named(before) if before.group.protocol == NAMED else self._look_at_legacy(before)

    def _look_at_named(self, before: Running) -> Look:
        group, folders, shares = before.group, self._folders(before.group.id), self._daemons.shares
        try:
            seen = shares.seen(folders)
            clients = frozenset[int]() if seen.server is None else shares.clients(folders)
        except (NoAnswer, Declined) as error:
            return Look(str(error), {}, before.clients)
        if seen.server is None or server_problem(group, seen.server):
            return Look(None, {}, clients, trouble=server_problem(group, seen.server))
        problems = {each.share.name: shares.problem(group, folders, each.share, seen) for each in before.shares}
        wrong = {name: problem for name, problem in problems.items() if problem}
        return Look(None, {}, clients, self._canary_of(before, clients, (seen.server.pid,)), shares=wrong)

    def _look_at_legacy(self, before: Running) -> Look:
        folders = self._folders(before.group.id)
        try:
            answer = self._control.ask(folders, PERCENTAGE, SERVERS, seconds=_ANSWER_SECONDS)
        except NoAnswer as error:
            return Look(str(error), {}, before.clients)
        servers: dict[int, str | None] = {}
        clients: set[int] = set()
        for pid in whole_numbers(answer[1:]):
            try:
                told = self._control.ask(folders, f"{STATUS} {pid}", f"{CLIENTS} {pid}", seconds=_ANSWER_SECONDS)
            except NoAnswer:
                servers[pid] = None
                clients.update(each for each in before.clients if Process.of(each) is not None)
                continue
            servers[pid] = told[0] if told else None
            clients.update(whole_numbers(told[1:]))
        return Look(None, servers, frozenset(clients), self._canary_of(before, clients, servers))

    def _canary_of(self, before: Running, clients: Collection[int], servers: Iterable[int]) -> str | None:
        if before.state is GroupState.WEDGED or before.clients.difference(clients):
            return self._canary.sent(before.group, self._folders(before.group.id), servers)
        return None


def wait_for_an_end(processes: Iterable[Process], seconds: float) -> None:
    """Until one of them has ended, or for ``seconds``. On pidfds (pidfd_open(2)) where the kernel has them: it costs
    nothing meanwhile."""
    poll, descriptors = select.poll(), []
    try:
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                return
            except OSError:  # none on this kernel
                break
            descriptors.append(descriptor)
            poll.register(descriptor, select.POLLIN)
            if not process.alive:
                return
        poll.poll(seconds * 1000)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
