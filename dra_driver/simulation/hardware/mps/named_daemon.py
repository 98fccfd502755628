"""The control daemon of protocol 3: named servers, their namespaces, and who comes through which folder.

As NVIDIA's MPS documentation has it (MPS v3 Interface, MPS v3 Namespaces): ``<pipe>/<server>`` and
``<pipe>/<server>/default`` lead to a server's default namespace, ``<pipe>/<server>/<namespace>`` to that namespace, and
``<pipe>/control`` to a server ``uid_<uid>`` that is made for whoever comes. All of it lives as long as the daemon.

Traps that NVIDIA Dynamo's page "Per-GPU Compute and Memory Limits with MPS" measured: a server with a device that is
not there is created all the same, then ends and is gone from the list, and its folders with it; without multi-user mode
only clients of the server's own user are let in, root no more than others. Every root may change everything, also one
in a container that has the daemon's own ``control``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

from dra_driver.simulation.hardware.mps import named_commands, processes
from dra_driver.simulation.hardware.mps.commands import Reply
from dra_driver.simulation.hardware.mps.daemon import Settings
from dra_driver.simulation.hardware.mps.devices import State, visible
from dra_driver.simulation.hardware.mps.faults import Played
from dra_driver.simulation.hardware.mps.launching import clients_in, launch
from dra_driver.simulation.hardware.mps.logs import Log
from dra_driver.simulation.hardware.mps.named_server import STARTING, NamedServer, Newcomer
from dra_driver.simulation.hardware.mps.namespace import DEFAULT, Namespace
from dra_driver.simulation.hardware.mps.namespace_folder import NamespaceFolder
from dra_driver.simulation.hardware.mps.pipes import CLIENTS, CONTROL, LOG, Answer, PipeDirectory, Request
from dra_driver.simulation.hardware.mps.values import Invalid

_TAKEN = (CONTROL, LOG, CLIENTS)
_STATUS = {"ACTIVE": "Ready", "FAULT": "Fault"}  # only Ready is in the pages


@dataclass(slots=True)
class NamedDaemon:
    """In the place of ``daemon.Daemon``."""

    settings: Settings
    pipes: PipeDirectory
    state: State
    log: Log
    played: Played
    named: dict[str, NamedServer] = field(default_factory=dict)
    quitting: bool = False
    force_after: float | None = None  # seconds, once quitting
    tick: float | None = 1.0  # seconds after which lost tickets are replaced
    _newcomers: list[Newcomer] = field(default_factory=list)
    _due_later: list[tuple[Answer, Reply]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.quitting and not self.named

    @property
    def multi_user(self) -> bool:
        return self.settings.multi_user

    def inputs(self) -> Mapping[int, Callable[[], None]]:
        """What is to be done when something has come on a descriptor."""
        found: dict[int, Callable[[], None]] = {self.pipes.control: self._asked}
        for server in self.named.values():
            found[server.link.fileno()] = partial(self._server_said, server)
            for name, folder in server.folders.items():
                folder.top_up()
                found[folder.control] = partial(self._came, server, name or DEFAULT, folder)
        return found

    def quit(self, seconds: float | None) -> None:
        """The pages have no time that clients get: "stop the control daemon and all running servers"."""
        self.quitting, self.force_after = True, seconds
        for server in self.named.values():
            server.shut_down(force=False)

    def force(self) -> None:
        for server in self.named.values():
            server.shut_down(force=True)

    def create_server(self, name: str, uid: int, allowed: str | None) -> NamedServer:
        if self.quitting:
            raise Invalid("The MPS control daemon is quitting")
        if name in _TAKEN:
            raise Invalid(f"The pipe directory has a file of the name {name}")
        devices, unknown = visible(self.state.devices(), self.settings.devices)
        if allowed is not None:
            devices, unknown = visible(devices, allowed)
        logs = self.settings.logs / name
        logs.mkdir(parents=True, exist_ok=True)
        process, link = launch(self.state.path, logs)
        self.log(f"Starting new server {name}, process {process.pid}, for user {uid}")
        link.send(
            {"devices": ",".join([*(each.uuid for each in devices), *unknown]), "percentage": 100.0, "limits": {}}
        )
        path = self.pipes.path / name
        server = NamedServer(name, uid, allowed, tuple(each.uuid for each in devices), path, process, link)
        own = server.folders[""] = NamespaceFolder(path)
        own.open()
        server.add(Namespace(DEFAULT))
        self.named[name] = server
        return server

    def answer_what_is_due(self) -> None:
        due = [each for each in self._due_later if each[1].is_due()]
        self._due_later = [each for each in self._due_later if each not in due]
        for answer, reply in due:
            self._finish(answer, "ok", reply.lines)

    def _asked(self) -> None:
        for request in self.pipes.requests():
            answer = self.pipes.answer(request.id)
            if answer is None:
                continue
            if request.kind == "command":
                self._command(request.text, answer)
                continue
            lifeline = self.pipes.lifeline(request.id)
            if lifeline is None:
                answer.close()
                continue
            self._welcome_by_user(request.text, answer, lifeline)

    def _command(self, text: str, answer: Answer) -> None:
        self.log(f"Cmd:{text}")
        name = named_commands.name_of(text)
        self.played.before(name)
        if self.played.hangs(name):
            return  # its descriptor stays open: who asked waits
        if named_commands.is_change(text) and answer.owner not in (0, os.getuid()):
            self._finish(answer, "error", ("Permission denied: for root and the owner of the daemon",))
            return
        try:
            self._due_later.append((answer, named_commands.run(self, text, answer.owner)))
        except (Invalid, OSError) as error:
            self._finish(answer, "error", (str(error),))

    def _finish(self, answer: Answer, word: str, lines: Iterable[str]) -> None:
        told = tuple(lines)
        for line in told:
            self.log(line)
        answer.send(word, *told)
        answer.close()

    def _came(self, server: NamedServer, namespace: str, folder: NamespaceFolder) -> None:
        for request in folder.requests():
            answer = folder.answer(request.id)
            lifeline = None if answer is None else folder.lifeline(request.id)
            if answer is None:
                continue
            if lifeline is None:
                answer.close()
                continue
            newcomer = Newcomer(server.name, namespace, request.text, answer, lifeline)
            uid = processes.user_of(processes.holder_of(lifeline, _pid(request)))
            if not self.multi_user and uid != server.uid:
                newcomer.refuse(
                    f"CUDA_ERROR_NOT_PERMITTED: MPS server {server.name} serves user {server.uid}, not {uid}"
                )
                continue
            self._welcome(newcomer)

    def _welcome_by_user(self, text: str, answer: Answer, lifeline: int) -> None:
        uid = 0 if self.multi_user else os.fstat(lifeline).st_uid
        name = f"uid_{uid}"
        newcomer = Newcomer(name, DEFAULT, text, answer, lifeline)
        try:
            if name not in self.named:
                self.create_server(name, uid, None)
        except Invalid as error:
            newcomer.refuse(f"CUDA_ERROR_MPS_SERVER_NOT_READY: {error}")
            return
        self._welcome(newcomer)

    def _welcome(self, newcomer: Newcomer) -> None:
        self.played.before("client")
        if self.played.hangs("client"):
            return
        self.log(f"NEW CLIENT of server {newcomer.server}, namespace {newcomer.namespace}")
        self._newcomers.append(newcomer)
        self._hand_over()

    def _hand_over(self) -> None:
        waiting, self._newcomers = self._newcomers, []
        for newcomer in waiting:
            server = self.named.get(newcomer.server)
            namespace = None if server is None else server.namespaces.get(newcomer.namespace)
            if server is None or server.ending or namespace is None:
                newcomer.refuse("CUDA_ERROR_MPS_CONNECTION_FAILED: the MPS server is gone")
            elif server.status == STARTING:
                self._newcomers.append(newcomer)
            else:
                message = {"do": "client", "text": newcomer.text, "namespace": asdict(namespace)}
                server.link.send(message, newcomer.answer.descriptor, newcomer.lifeline)
                newcomer.answer.close()
                os.close(newcomer.lifeline)

    def _server_said(self, server: NamedServer) -> None:
        message = server.link.receive()
        if message is None:
            self._ended(server)
            return
        said = message[0]
        server.status = _STATUS.get(said["status"], STARTING)
        server.clients = clients_in(said)
        self._hand_over()

    def _ended(self, server: NamedServer) -> None:
        del self.named[server.name]
        for folder in reversed(server.folders.values()):
            folder.remove()
        server.link.close()
        self.log(f"Server {server.name}, process {server.pid}, exited with status {server.process.wait()}")
        self.state.tidy()  # it may have been killed
        self._hand_over()


def _pid(request: Request) -> int:
    first = request.text.partition(" ")[0]
    return int(first) if first.isdigit() else 0
