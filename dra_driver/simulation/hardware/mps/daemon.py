"""The control daemon: its defaults, its servers, the clients that wait for one, and the answers that are due later.

A server belongs to one user. A client of another user waits until that server's clients have gone, then gets one of its
own; in multi-user mode all share one server (nvidia-cuda-mps-control(1), and -multiuser-server). A client that has to
wait for a server is handed over when that is ready. The loop around it is in ``control``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dra_driver.simulation.hardware.mps import commands
from dra_driver.simulation.hardware.mps.commands import ClientOfServer, Reply
from dra_driver.simulation.hardware.mps.devices import State, visible
from dra_driver.simulation.hardware.mps.faults import Played
from dra_driver.simulation.hardware.mps.launching import ServerProcess, clients_in, launch
from dra_driver.simulation.hardware.mps.link import Link
from dra_driver.simulation.hardware.mps.logs import Log
from dra_driver.simulation.hardware.mps.pipes import Answer, PipeDirectory, Request
from dra_driver.simulation.hardware.mps.protocols import LEGACY
from dra_driver.simulation.hardware.mps.values import Invalid


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon's environment and options say. ``devices``: CUDA_VISIBLE_DEVICES, None for all."""

    state_file: Path
    pipes: Path
    logs: Path
    devices: str | None
    percentage: float
    limits: Mapping[str, int]
    multi_user: bool
    protocol: int = LEGACY


@dataclass(slots=True)
class Server(ServerProcess):
    """A server process, and what it last said of itself."""

    uid: int
    process: subprocess.Popen[bytes]
    link: Link
    percentage: float
    limits: dict[str, int]
    status: str = "INITIALIZING"
    clients: tuple[ClientOfServer, ...] = ()
    ending: bool = False

    def set_percentage(self, value: float) -> None:
        self.percentage = value
        self.link.send({"do": "percentage", "value": value})

    def set_limit(self, device: str, size: int) -> None:
        self.limits[device] = size
        self.link.send({"do": "limit", "device": device, "value": size})


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """A client without a server yet."""

    uid: int
    text: str
    answer: Answer
    lifeline: int


@dataclass(slots=True)
class Daemon:
    settings: Settings
    pipes: PipeDirectory
    state: State
    log: Log
    played: Played
    percentage: float
    limits: dict[str, int]
    priority: int = 0
    servers: list[Server] = field(default_factory=list)
    quitting: bool = False
    force_after: float | None = None  # seconds, once quitting
    tick: float | None = None  # it needs none
    _newcomers: list[_Newcomer] = field(default_factory=list)
    _due_later: list[tuple[Answer, Reply]] = field(default_factory=list)

    def inputs(self) -> Mapping[int, Callable[[], None]]:
        """What is to be done when something has come on a descriptor."""
        links = {server.link.fileno(): partial(self.server_said, server) for server in self.servers}
        return {self.pipes.control: lambda: self.asked(self.pipes.requests()), **links}

    @property
    def is_over(self) -> bool:
        return self.quitting and not self.servers

    def device(self, name: str) -> str:
        """A device's UUID, so that an ordinal and a UUID are one; what names no device stays what it is."""
        mine, _ = visible(self.state.devices(), self.settings.devices)
        found, _ = visible(mine, name)
        return found[0].uuid if found else name

    def quit(self, seconds: float | None) -> None:
        self.quitting = True
        self.force_after = seconds
        for newcomer in self._newcomers:
            self._refuse(newcomer, "CUDA_ERROR_MPS_SERVER_NOT_READY: the MPS control daemon is quitting")
        self._newcomers.clear()
        for server in self.servers:
            server.shut_down(force=False)

    def force(self) -> None:
        for server in self.servers:
            server.shut_down(force=True)

    def start_server(self, uid: int) -> Server:
        if self.quitting:
            raise Invalid("The MPS control daemon is quitting")
        if any(server.uid == uid or self.settings.multi_user for server in self.servers):
            raise Invalid(f"There is an MPS server for user {uid} already")
        process, link = launch(self.state.path, self.settings.logs)
        self.log(f"Starting new server {process.pid} for user {uid}")
        server = Server(uid, process, link, self.percentage, dict(self.limits))
        server.link.send({"devices": self.settings.devices, "percentage": server.percentage, "limits": server.limits})
        self.servers.append(server)
        return server

    def asked(self, requests: Iterable[Request]) -> None:
        for request in requests:
            answer = self.pipes.answer(request.id)
            if answer is None:
                continue
            self.log("Accepting connection...")
            if request.kind == "command":
                self._command(request.text, answer)
            else:
                self._client(request, answer)

    def server_said(self, server: Server) -> None:
        """Read what a server says of itself; its end, when it has ended."""
        message = server.link.receive()
        if message is None:
            self._ended(server)
            return
        said = message[0]
        if server.status == "INITIALIZING":
            self.log(f"NEW SERVER {server.pid}: Ready")
        server.status = said["status"]
        server.clients = clients_in(said)
        self._hand_over()

    def answer_what_is_due(self) -> None:
        due = [each for each in self._due_later if each[1].is_due()]
        self._due_later = [each for each in self._due_later if each not in due]
        for answer, reply in due:
            self._finish(answer, "ok", reply.lines)

    def _command(self, text: str, answer: Answer) -> None:
        self.log("NEW UI")
        self.log(f"Cmd:{text}")
        self.played.before(commands.name_of(text))
        if self.played.hangs(commands.name_of(text)):
            return  # its descriptor stays open: who asked waits
        if commands.is_change(text) and answer.owner not in (0, os.getuid()):
            self._finish(answer, "error", ("Permission denied: for root and the owner of the daemon",))
            return
        try:
            reply = commands.run(self, text)
        except Invalid as error:
            self._finish(answer, "error", (str(error),))
            return
        self._due_later.append((answer, reply))

    def _finish(self, answer: Answer, word: str, lines: Sequence[str]) -> None:
        for line in lines:
            self.log(line)
        answer.send(word, *lines)
        answer.close()
        self.log("UI closed")

    def _client(self, request: Request, answer: Answer) -> None:
        lifeline = self.pipes.lifeline(request.id)
        if lifeline is None:
            answer.close()
            return
        newcomer = _Newcomer(os.fstat(lifeline).st_uid, request.text, answer, lifeline)
        self.played.before("client")
        if self.played.hangs("client"):
            return
        if self.quitting:
            self._refuse(newcomer, "CUDA_ERROR_MPS_SERVER_NOT_READY: the MPS control daemon is quitting")
            return
        self.log(f"NEW CLIENT from user {newcomer.uid}")
        self._newcomers.append(newcomer)
        self._hand_over()

    def _hand_over(self) -> None:
        waiting, self._newcomers = self._newcomers, []
        for newcomer in waiting:
            server = self._server_for(newcomer)
            if server is None:
                self._newcomers.append(newcomer)
                continue
            server.link.send({"do": "client", "text": newcomer.text}, newcomer.answer.descriptor, newcomer.lifeline)
            newcomer.answer.close()
            os.close(newcomer.lifeline)

    def _server_for(self, newcomer: _Newcomer) -> Server | None:
        """A server that can take it now. Sees to it that there will be one, where there is none."""
        usable = [each for each in self.servers if not each.ending]
        for server in usable:
            if self.settings.multi_user or server.uid == newcomer.uid:
                return server if server.status != "INITIALIZING" else None
        for server in usable:  # another user's
            if server.status != "INITIALIZING" and not server.clients:
                server.shut_down(force=False)
        if not self.servers:
            self.start_server(newcomer.uid)
        return None

    def _ended(self, server: Server) -> None:
        self.servers.remove(server)
        server.link.close()
        code = server.process.wait()
        self.log(f"Server {server.pid} exited with status {code}")
        self.state.tidy()  # it may have been killed
        if server.status == "INITIALIZING":
            for newcomer in [each for each in self._newcomers if self.settings.multi_user or each.uid == server.uid]:
                self._newcomers.remove(newcomer)
                self._refuse(newcomer, "CUDA_ERROR_MPS_CONNECTION_FAILED: the MPS server did not start")
        self._hand_over()

    def _refuse(self, newcomer: _Newcomer, text: str) -> None:
        newcomer.answer.send("error", text, ".")
        newcomer.answer.close()
        os.close(newcomer.lifeline)
