"""What the commands of protocol 3 see of the daemon and its servers. Types only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dra_driver.simulation.hardware.mps.commands import ClientOfServer
from dra_driver.simulation.hardware.mps.namespace import Namespace


class ServerView(Protocol):
    """A server, as the daemon knows it. ``offered``: the UUIDs of its devices, in order."""

    name: str
    uid: int
    status: str
    clients: tuple[ClientOfServer, ...]
    namespaces: dict[str, Namespace]

    @property
    def pid(self) -> int: ...
    @property
    def path(self) -> Path: ...
    @property
    def allowed(self) -> str | None: ...
    @property
    def offered(self) -> Sequence[str]: ...
    def add(self, namespace: Namespace) -> None: ...
    def drop(self, namespace: str) -> None: ...
    def terminate(self, client: int) -> None: ...
    def shut_down(self, *, force: bool) -> None: ...


class Control(Protocol):
    """The daemon."""

    @property
    def named(self) -> Mapping[str, ServerView]: ...
    @property
    def multi_user(self) -> bool: ...
    def create_server(self, name: str, uid: int, allowed: str | None) -> ServerView: ...
    def quit(self, seconds: float | None) -> None: ...
