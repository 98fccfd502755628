"""One simulated nvidia-cuda-mps-server: its clients, what each of them gets, and the end of each.

``python -m dra_driver.simulation.hardware.mps.server STATE LOG_FOLDER LINK``, started by the daemon only. It takes the
devices for itself (a process on the GPU, as the real one is), then clients that the daemon hands over. It ends with its
daemon, and its clients with it.

A client that fails a kernel (it writes "fault") makes the status FAULT: every client gets the error, new ones wait
until those are gone (NVIDIA's MPS documentation, Volta MPS fault containment).
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dra_driver.simulation.hardware.mps import context, namespace, processes
from dra_driver.simulation.hardware.mps.context import FAULT, Context, Refused
from dra_driver.simulation.hardware.mps.devices import Device, State, User, visible
from dra_driver.simulation.hardware.mps.link import Link
from dra_driver.simulation.hardware.mps.logs import Log
from dra_driver.simulation.hardware.mps.namespace import Namespace
from dra_driver.simulation.hardware.mps.pipes import Answer
from dra_driver.simulation.hardware.mps.presence import Presence

_GOODBYE = b"bye"


@dataclass(frozen=True, slots=True)
class Client:
    id: int
    pid: int
    answer: Answer
    lifeline: int
    context: Context


class Server:
    """Events come in through :meth:`told` (by the daemon) and :meth:`heard` (from a client); True: it is over."""

    def __init__(self, state: State, log: Log, link: Link) -> None:
        self._state = state
        self._log = log
        self._link = link
        self._pid = os.getpid()
        self._presence = Presence(state.path)
        self._status = "INITIALIZING"
        self._devices: tuple[Device, ...] = ()
        self._percentage = 100.0
        self._limits: dict[str, int] = {}
        self._clients: dict[int, Client] = {}
        self._connected = 0
        self._waiting: list[tuple[Mapping[str, Any], Answer, int]] = []
        self._wedged = False
        self._ending = False

    def start(self, settings: Mapping[str, Any]) -> None:
        """Take the devices. Refused when one is not there, or another process has it to itself."""
        self._presence.begin()
        self._devices, unknown = visible(self._state.devices(), settings["devices"])
        if unknown or not self._devices:
            raise Refused(f"CUDA_ERROR_NO_DEVICE: {', '.join(unknown) or 'no device'} is not there")
        self._percentage = settings["percentage"]
        for device, size in settings["limits"].items():
            self._limit(device, size)
        for device in self._devices:
            if device.lost:
                raise Refused(f"CUDA_ERROR_DEVICE_UNAVAILABLE: {device.uuid} is lost")
            self._state.change_users(frozenset((device.uuid,)), partial(self._enter, device))
        self._tell("ACTIVE")

    def told(self, message: Mapping[str, Any], files: Sequence[int]) -> bool:
        match message["do"]:
            case "client":
                self._connect(message, Answer(files[0]), files[1])
            case "percentage":
                self._percentage = message["value"]
            case "limit":
                self._limit(message["device"], message["value"])
            case "terminate":
                for client in [each for each in self._clients.values() if each.pid == message["pid"]]:
                    client.answer.send("error CUDA_ERROR_MPS_CLIENT_TERMINATED: terminated by the MPS control daemon")
                    self._part(client)
                self._tell(self._status)
            case "shutdown":
                self._ending = True
                if message["force"]:
                    return True
        return self._ending and not self._clients

    def heard(self, lifeline: int) -> bool:
        client = self._clients[lifeline]
        said = os.read(lifeline, 4096).strip()
        if said == FAULT:
            self._log(f"Client {client.pid}: fatal fault, all clients of its devices fail")
            for each in self._clients.values():
                each.answer.send("error CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
            self._tell("FAULT")
            return False
        if said != _GOODBYE:
            self._log(f"Receive command failed, assuming client exit. Client process {client.pid} disconnected")
            self._wedged = self._wedged or self._plays_wedge()
        self._part(client)
        recovered = self._status == "FAULT" and not self._clients
        self._tell("ACTIVE" if recovered else self._status)
        if recovered and not self._wedged:
            waiting, self._waiting = self._waiting, []
            for message, answer, other in waiting:
                self._connect(message, answer, other)
        return self._ending and not self._clients

    def lifelines(self) -> tuple[int, ...]:
        return tuple(self._clients)

    def end(self) -> None:
        """Its clients see the end of the file; the devices are free."""
        self._state.leave(self._presence.holder)
        self._presence.end()

    def _connect(self, message: Mapping[str, Any], answer: Answer, lifeline: int) -> None:
        if self._wedged or self._status == "FAULT":
            self._log("Client waits")
            self._waiting.append((message, answer, lifeline))
            return
        try:
            client = self._accept(message, answer, lifeline)
        except Refused as error:
            self._log(f"Client refused: {error}")
            answer.send("error", str(error), ".")
            answer.close()
            os.close(lifeline)
            return
        self._connected += 1
        self._clients[lifeline] = client
        self._log(f"Client {client.pid} connected")
        share = f"active_thread_percentage={client.context.percentage:.1f}"
        facts = ("mps=yes", f"server={self._pid}", f"pid={client.pid}", share)
        answer.send("ok", *facts, *context.describe(client.context), ".")
        self._tell(self._status)

    def _accept(self, message: Mapping[str, Any], answer: Answer, lifeline: int) -> Client:
        current = {each.uuid: each for each in self._state.devices()}
        offered = [current[each.uuid] for each in self._devices if each.uuid in current]
        wish, priority = namespace.parse_wish(message["text"])
        pid = processes.holder_of(lifeline, wish.pid)
        cgroup = self._state.cgroup_of(pid)
        if "namespace" in message:
            own = Namespace(**message["namespace"])
            granted = namespace.grant(wish, priority, own, offered, self._used(), cgroup)
        else:
            granted = context.grant(wish, offered, self._percentage, self._limits, self._used(), cgroup)
        for device in granted.devices:
            mine = sum(device.uuid in _uuids(client) for client in self._clients.values())
            if mine >= device.most_mps_clients:
                raise Refused(f"CUDA_ERROR_MPS_MAX_CLIENTS_REACHED: {mine} clients have {device.uuid}")
        client = Client(self._connected, pid, answer, lifeline, granted)
        admit = partial(context.require_within, allocate=granted.allocated, cgroup=cgroup)
        self._state.enter(_uuids(client), self._user(client), admit)
        return client

    def _part(self, client: Client) -> None:
        del self._clients[client.lifeline]
        client.answer.close()
        os.close(client.lifeline)
        gone = self._user(client)

        def without_one(users: tuple[User, ...]) -> tuple[User, ...]:
            place = users.index(gone) if gone in users else len(users)
            return users[:place] + users[place + 1 :]

        self._state.change_users(_uuids(client), without_one)

    def _user(self, client: Client) -> User:
        return User(
            client.pid, self._pid, client.context.allocated, client.context.cgroup, holder=self._presence.holder
        )

    def _enter(self, device: Device, users: tuple[User, ...]) -> tuple[User, ...]:
        context.require_free(device, users)
        return (*users, User(self._pid, self._pid, holder=self._presence.holder))

    def _limit(self, name: str, size: int) -> None:
        for device in visible(self._devices, name)[0]:
            self._limits[device.uuid] = size

    def _used(self) -> dict[str, int]:
        used: dict[str, int] = {}
        for client in self._clients.values():
            for device in client.context.devices:
                used[device.uuid] = used.get(device.uuid, 0) + client.context.allocated
        return used

    def _plays_wedge(self) -> bool:
        gpus = frozenset(device.gpu for device in self._devices)
        return any(fault.get("wedge") for fault in self._state.faults(gpus))

    def _tell(self, status: str) -> None:
        self._status = status
        clients = [
            {
                "id": each.id,
                "pid": each.pid,
                "devices": [device.uuid for device in each.context.devices],
                "namespace": processes.namespace(each.pid),
                "command": processes.name(each.pid),
                "mps_namespace": each.context.namespace,
            }
            for each in self._clients.values()
        ]
        self._link.send({"status": status, "clients": clients})


def _uuids(client: Client) -> frozenset[str]:
    return frozenset(device.uuid for device in client.context.devices)


def main(arguments: Sequence[str]) -> int:
    state_file, log_folder, descriptor = arguments
    Path("/proc/self/comm").write_text("nvidia-cuda-mps-server")  # cut to 15 characters, as the real one's is
    link = Link(socket.socket(fileno=int(descriptor)))
    log = Log(Path(log_folder) / "server.log", "Server")
    server = Server(State(Path(state_file)), log, link)
    try:
        first = link.receive()
        if first is None:
            return 1
        try:
            server.start(first[0])
            _serve(server, link)
        finally:
            server.end()
    except Refused as error:
        log(f"Failed to start: {error}")
        return 1
    return 0


def _serve(server: Server, link: Link) -> None:
    while True:
        ready, _, _ = select.select([link.fileno(), *server.lifelines()], [], [])
        for descriptor in ready:
            if descriptor == link.fileno():
                message = link.receive()
                over = message is None or server.told(*message)
            else:
                over = descriptor in server.lifelines() and server.heard(descriptor)
            if over:
                return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
