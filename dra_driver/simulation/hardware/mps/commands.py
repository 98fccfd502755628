"""The command language of nvidia-cuda-mps-control: what each command takes, does and answers.

From nvidia-cuda-mps-control(1) and NVIDIA's MPS documentation (Appendix: Tools and Interface Reference), with the
answers as those who run it have published them. The words of refusals, what get_device_client_list prints, and the
answer where no limit is set are in none of these: they are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dra_driver.simulation.hardware.mps import values
from dra_driver.simulation.hardware.mps.values import Invalid

_SHORT_UUID = 22  # characters of a UUID in the table of ps


@dataclass(frozen=True, slots=True)
class ClientOfServer:
    """One line of ps."""

    id: int
    pid: int
    devices: tuple[str, ...]
    namespace: str
    command: str
    mps_namespace: str = ""  # of protocol 3


class ServerView(Protocol):
    """A server, as the daemon knows it. Limits in bytes, by device as ``Control.device`` names it."""

    @property
    def pid(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def clients(self) -> Sequence[ClientOfServer]: ...
    @property
    def percentage(self) -> float: ...
    @property
    def limits(self) -> Mapping[str, int]: ...
    def set_percentage(self, value: float) -> None: ...
    def set_limit(self, device: str, size: int) -> None: ...
    def terminate(self, client: int) -> None: ...
    def shut_down(self, *, force: bool) -> None: ...


class Control(Protocol):
    """The daemon. Its defaults are for servers that start later."""

    percentage: float
    priority: int
    limits: dict[str, int]

    @property
    def servers(self) -> Sequence[ServerView]: ...
    def device(self, name: str) -> str: ...
    def start_server(self, uid: int) -> ServerView: ...
    def quit(self, seconds: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """Lines to print, once ``is_due``."""

    lines: tuple[str, ...] = ()
    is_due: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[Control, Sequence[str]], Reply]
    usage: str = ""
    least: int = 0
    most: int = 0
    changes: bool = False


def name_of(text: str) -> str:
    return text.split(maxsplit=1)[0] if text.strip() else ""


def is_change(text: str) -> bool:
    """Whether it is for root and the owner of the daemon only."""
    command = _COMMANDS.get(name_of(text))
    return command is not None and command.changes


def run(control: Control, text: str) -> Reply:
    """Do one line. Invalid with what to print when it is refused; nothing has changed then."""
    words = text.split()
    if not words:
        return Reply()
    command = _COMMANDS.get(words[0])
    if command is None:
        raise Invalid(f"Unknown command {words[0]}: help lists the commands")
    arguments = words[1:]
    if not command.least <= len(arguments) <= command.most:
        raise Invalid(f"Usage: {words[0]} {command.usage}".rstrip())
    return command.run(control, arguments)


def _server(control: Control, pid: str) -> ServerView:
    number = values.whole(pid, "PID")
    for server in control.servers:
        if server.pid == number:
            return server
    raise Invalid(f"No MPS server has the PID {pid}")


def _get_server_list(control: Control, _arguments: Sequence[str]) -> Reply:
    return Reply(tuple(str(server.pid) for server in control.servers))


def _get_server_status(control: Control, arguments: Sequence[str]) -> Reply:
    return Reply((_server(control, arguments[0]).status,))


def _start_server(control: Control, arguments: Sequence[str]) -> Reply:
    if arguments[0] != "-uid":
        raise Invalid("Usage: start_server -uid UID")
    server = control.start_server(values.whole(arguments[1], "UID"))
    return Reply(is_due=lambda: server.status != "INITIALIZING" or server not in control.servers)


def _shutdown_server(control: Control, arguments: Sequence[str]) -> Reply:
    forced = list(arguments[1:]) == ["-f"]
    if arguments[1:] and not forced:
        raise Invalid("Usage: shutdown_server PID [-f]")
    server = _server(control, arguments[0])
    server.shut_down(force=forced)
    return Reply(is_due=lambda: not forced or server not in control.servers)


def _get_client_list(control: Control, arguments: Sequence[str]) -> Reply:
    return Reply(tuple(str(client.pid) for client in _server(control, arguments[0]).clients))


def _get_device_client_list(control: Control, arguments: Sequence[str]) -> Reply:
    servers = [_server(control, arguments[0])] if arguments else control.servers
    by_device: dict[str, list[int]] = {}
    for server in servers:
        for client in server.clients:
            for device in client.devices:
                by_device.setdefault(device, []).append(client.pid)
    return Reply(tuple(f"{device} {' '.join(map(str, pids))}" for device, pids in by_device.items()))


def _ps(control: Control, arguments: Sequence[str]) -> Reply:
    if arguments and arguments[0] != "-p":
        raise Invalid("Usage: ps [-p PID]")
    servers = [_server(control, arguments[1])] if len(arguments) == 2 else control.servers
    heading = f"{'PID':<9} {'ID':<9} {'SERVER':<9} {'DEVICE':<23} {'NAMESPACE':<11} COMMAND"
    rows = [
        f"{client.pid:<9} {client.id:<9} {server.pid:<9} {device[:_SHORT_UUID]:<23} {client.namespace:<11} "
        f"{client.command}"
        for server in servers
        for client in server.clients
        for device in client.devices
    ]
    return Reply((heading, *rows))


def _quit(control: Control, arguments: Sequence[str]) -> Reply:
    seconds: float | None = None
    if arguments:
        if arguments[0] != "-t" or len(arguments) != 2:
            raise Invalid("Usage: quit [-t TIMEOUT]")
        seconds = values.whole(arguments[1], "timeout")
    control.quit(seconds)
    return Reply(is_due=lambda: not control.servers)


def _set_default_percentage(control: Control, arguments: Sequence[str]) -> Reply:
    control.percentage = values.percentage(arguments[0])
    return _get_default_percentage(control, ())


def _get_default_percentage(control: Control, _arguments: Sequence[str]) -> Reply:
    return Reply((f"{control.percentage:.1f}",))


def _set_percentage(control: Control, arguments: Sequence[str]) -> Reply:
    _server(control, arguments[0]).set_percentage(values.percentage(arguments[1]))
    return _get_percentage(control, arguments[:1])


def _get_percentage(control: Control, arguments: Sequence[str]) -> Reply:
    return Reply((f"{_server(control, arguments[0]).percentage:.1f}",))


def _set_default_limit(control: Control, arguments: Sequence[str]) -> Reply:
    control.limits[control.device(arguments[0])] = values.memory(arguments[1])
    return Reply()


def _get_default_limit(control: Control, arguments: Sequence[str]) -> Reply:
    return _limit_reply(control.limits.get(control.device(arguments[0])))


def _set_limit(control: Control, arguments: Sequence[str]) -> Reply:
    _server(control, arguments[0]).set_limit(control.device(arguments[1]), values.memory(arguments[2]))
    return Reply()


def _get_limit(control: Control, arguments: Sequence[str]) -> Reply:
    return _limit_reply(_server(control, arguments[0]).limits.get(control.device(arguments[1])))


def _limit_reply(limit: int | None) -> Reply:
    return Reply((values.memory_text(limit),) if limit is not None else ("none",))


def _terminate_client(control: Control, arguments: Sequence[str]) -> Reply:
    server = _server(control, arguments[0])
    pid = values.whole(arguments[1], "PID")
    if all(client.pid != pid for client in server.clients):
        raise Invalid(f"MPS server {server.pid} has no client with the PID {pid}")
    server.terminate(pid)
    return Reply(is_due=lambda: all(client.pid != pid for client in server.clients))


def _set_priority(control: Control, arguments: Sequence[str]) -> Reply:
    if arguments[0] not in ("0", "1"):
        raise Invalid(f"Invalid client priority {arguments[0]}: 0 (normal) or 1 (below normal)")
    control.priority = int(arguments[0])
    return Reply()


def _get_priority(control: Control, _arguments: Sequence[str]) -> Reply:
    return Reply((str(control.priority),))


def _help(_control: Control, _arguments: Sequence[str]) -> Reply:
    return Reply(tuple(f"{name} {command.usage}".rstrip() for name, command in _COMMANDS.items()))


_COMMANDS = {
    "get_server_list": _Command(_get_server_list),
    "get_server_status": _Command(_get_server_status, "PID", 1, 1),
    "start_server": _Command(_start_server, "-uid UID", 2, 2, changes=True),
    "shutdown_server": _Command(_shutdown_server, "PID [-f]", 1, 2, changes=True),
    "get_client_list": _Command(_get_client_list, "PID", 1, 1),
    "get_device_client_list": _Command(_get_device_client_list, "[PID]", 0, 1),
    "terminate_client": _Command(_terminate_client, "SERVER CLIENT", 2, 2, changes=True),
    "ps": _Command(_ps, "[-p PID]", 0, 2),
    "set_default_active_thread_percentage": _Command(_set_default_percentage, "PERCENTAGE", 1, 1, changes=True),
    "get_default_active_thread_percentage": _Command(_get_default_percentage),
    "set_active_thread_percentage": _Command(_set_percentage, "PID PERCENTAGE", 2, 2, changes=True),
    "get_active_thread_percentage": _Command(_get_percentage, "PID", 1, 1),
    "set_default_device_pinned_mem_limit": _Command(_set_default_limit, "DEVICE VALUE", 2, 2, changes=True),
    "get_default_device_pinned_mem_limit": _Command(_get_default_limit, "DEVICE", 1, 1),
    "set_device_pinned_mem_limit": _Command(_set_limit, "PID DEVICE VALUE", 3, 3, changes=True),
    "get_device_pinned_mem_limit": _Command(_get_limit, "PID DEVICE", 2, 2),
    "set_default_client_priority": _Command(_set_priority, "0|1", 1, 1, changes=True),
    "get_default_client_priority": _Command(_get_priority),
    "quit": _Command(_quit, "[-t TIMEOUT]", 0, 2, changes=True),
    "help": _Command(_help),
}
