"""What a group of protocol 3 has in its daemon: one server over its devices, and a namespace for each share.

Neither is on any disk (MPS v3 Configuration File: what is created later lives as long as the daemon), so all of it is
made for each daemon anew. Nothing is believed before it was read back: NVIDIA's program accepts a server whose device
is not there, which then ends, and a client that is led to it runs without limits (NVIDIA Dynamo, "Per-GPU Compute and
Memory Limits with MPS").
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dra_driver.mps.errors import GroupFailed, GroupTimeout
from dra_driver.mps.group import SERVER, GroupFolders, MpsGroup, MpsShare
from kubelet_plugin.mps_supervisor import named_answers as answers
from kubelet_plugin.mps_supervisor.control import Control, Declined, NoAnswer, last_words
from kubelet_plugin.mps_supervisor.named_answers import SeenServer, SeenShare

ANSWER_SECONDS: Final = 3.0

_DRAIN_LOOK_SECONDS = 0.1
_GONE_SECONDS = 2.0  # a server that was accepted is in the list at once, or has ended already


@dataclass(frozen=True, slots=True)
class Seen:
    """What a daemon says at one time."""

    server: SeenServer | None
    shares: Mapping[str, SeenShare]


class ServerStart:
    """The server of a daemon that is starting; :meth:`attempt` until it says that all is done."""

    def __init__(self, control: Control, group: MpsGroup, folders: GroupFolders) -> None:
        self._control = control
        self._group = group
        self._folders = folders
        self._created: float | None = None

    def attempt(self, seconds: float) -> str:
        """Empty when it serves; else what is waited for. Raises NoAnswer, GroupFailed, OSError."""
        try:
            seen = answers.server_of(self._control.run(self._folders, *answers.SERVERS, seconds=seconds))
            if seen is None and self._created is None:
                self._control.run(self._folders, *answers.create_server(self._group), seconds=seconds)
                self._created = time.monotonic()
                return "its server is started"
        except Declined as error:
            raise GroupFailed(
                f"the control daemon of MPS group {self._group.id} refuses its server: {error}"
            ) from error
        if seen is None and self._created is not None and time.monotonic() > self._created + _GONE_SECONDS:
            said = last_words(self._folders.log / SERVER / "server.log")
            raise GroupFailed(f"the MPS server of group {self._group.id} ended at once: {said or 'it said nothing'}")
        return answers.server_problem(self._group, seen)


class Shares:
    """Thread-safe, for different groups. Every method raises GroupTimeout when the daemon does not answer, GroupFailed
    when it refuses, OSError."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def seen(self, folders: GroupFolders) -> Seen:
        """Raises NoAnswer and Declined in place of those."""
        servers = self._control.run(folders, *answers.SERVERS, seconds=ANSWER_SECONDS)
        server = answers.server_of(servers)
        if server is None:
            return Seen(None, {})
        return Seen(server, answers.shares_of(self._control.run(folders, *answers.SHARES, seconds=ANSWER_SECONDS)))

    def clients(self, folders: GroupFolders) -> frozenset[int]:
        """Raises NoAnswer and Declined in place of those."""
        return answers.clients_of(self._control.run(folders, *answers.CLIENTS, seconds=ANSWER_SECONDS))

    def make(self, group: MpsGroup, folders: GroupFolders, share: MpsShare) -> None:
        """The share is there, with its limits, on a server that is alive. What is not so is removed."""
        with _told(f"share {share.name} of MPS group {group.id}", folders):
            if problem := self._made(group, folders, share):
                self._remove(folders, share.name)
                raise GroupFailed(
                    f"share {share.name} of MPS group {group.id} was removed again: {problem}",
                    hint=f"its limits would not hold; see {folders.log}",
                )

    def remove(self, group_id: str, folders: GroupFolders, name: str) -> None:
        """The share is not there (any more)."""
        with _told(f"removal of share {name} of MPS group {group_id}", folders):
            self._remove(folders, name)

    def drain(self, folders: GroupFolders, seconds: float) -> None:
        """Returns when the server has gone with its last client, or after ``seconds``: "server delete" refuses while
        there are clients. Raises nothing of the above: whoever calls ends the daemon anyway."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                self._control.run(folders, *answers.DELETE_SERVER, seconds=until - time.monotonic())
            except Declined:
                time.sleep(_DRAIN_LOOK_SECONDS)
            except NoAnswer:
                return
            else:
                return

    def _made(self, group: MpsGroup, folders: GroupFolders, share: MpsShare) -> str:
        """What is wrong with it after all was done; empty for nothing.

        It is created before anything is asked: as a rule it is not there, and each question is a run of a program.
        """
        try:
            self._control.run(folders, *answers.create_share(share.name), seconds=ANSWER_SECONDS)
        except Declined:
            there = self.seen(folders)
            if problem := answers.server_problem(group, there.server):
                return problem
            if share.name not in there.shares:
                raise
            if not self.problem(group, folders, share, there):
                return ""
        self._control.run(folders, *answers.limit_share(share), seconds=ANSWER_SECONDS)
        return self.problem(group, folders, share, self.seen(folders))

    def problem(self, group: MpsGroup, folders: GroupFolders, share: MpsShare, seen: Seen) -> str:
        """Why a container that got the share's folder would not get its limits; empty for nothing."""
        if problem := answers.server_problem(group, seen.server):
            return problem
        if problem := answers.share_problem(share, seen.shares.get(share.name)):
            return problem
        socket = folders.share(share.name) / "control"
        return "" if socket.exists() else f"there is no {socket}"

    def _remove(self, folders: GroupFolders, name: str) -> None:
        try:
            self._control.run(folders, *answers.delete_share(name), seconds=ANSWER_SECONDS)
            left = name in answers.shares_of(self._control.run(folders, *answers.SHARES, seconds=ANSWER_SECONDS))
        except Declined:  # as a rule because it is not there, or its server is not
            if name in self.seen(folders).shares:
                raise
            left = False
        if left:
            raise Declined(f"share {name} is still in its list")
        # Where a folder is left, a container that is given it by mistake must not find a socket of somebody else's.
        shutil.rmtree(folders.share(name), ignore_errors=True)


@contextmanager
def _told(what: str, folders: GroupFolders) -> Iterator[None]:
    """What a daemon answers about ``what``, as an error of the group."""
    try:
        yield
    except Declined as error:
        raise GroupFailed(f"{what}: its control daemon says: {error}", hint=f"see {folders.log}") from error
    except NoAnswer as error:
        raise GroupTimeout(f"{what}: {error}", hint="it is tried again") from error
