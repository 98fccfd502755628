"""Is the kubelet there? Two facts together say so: it accepted our registration, and it holds a connection.

Kubelets from 1.34 on keep one connection to the DRA socket open and treat its loss as loss of the plugin (cm/dra/plugin
dra_plugin_manager.go), so an open connection of a registered kubelet means that it can prepare claims here. Only then
may the plugin answer the controller's challenge, by which withdrawn ResourceSlices come back.

Where connections cannot be listed (no /proc), the registration alone has to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dra_driver.observability.listeners import Listeners
from kubelet_plugin.node.peers import peers

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RegistrationState:
    """What the kubelet said so far. ``refusals`` counts refusals in a row."""

    registrations: int = 0
    registered: bool = False
    refusals: int = 0
    refusal: str = ""


def open_connections(path: Path, *, ignored_pid: int | None = None) -> int | None:
    """How many accepted connections this process has on the unix socket ``path``; None when that cannot be found out.

    Peers with process id ``ignored_pid`` do not count (our own health check). A peer outside our process id namespace
    shows as 0, as the kubelet does.
    """
    found = peers(path)
    return None if found is None else sum(peer.pid != ignored_pid for peer in found)


class KubeletConnection:
    """Remembers the kubelet's notifications and looks for its connection. Thread-safe; nothing in it blocks."""

    def __init__(self, dra_socket: Path, *, ignored_pid: int | None = None) -> None:
        self._dra_socket = dra_socket
        self._ignored_pid = ignored_pid
        self._lock = threading.Lock()
        self._state = RegistrationState()
        self._changed: Listeners[[]] = Listeners("the kubelet's registration changed")

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called, on a gRPC thread, after each notification. It must not block."""
        self._changed.add(listener)

    @property
    def state(self) -> RegistrationState:
        return self._state

    def accepted(self) -> None:
        """The kubelet registered this plugin (again, after each of its restarts)."""
        with self._lock:
            self._state = RegistrationState(self._state.registrations + 1, registered=True)
        self._changed.tell()

    def refused(self, reason: str) -> None:
        """The kubelet will not have this plugin. It asks again with growing pauses as long as the socket is there."""
        with self._lock:
            state = self._state
            self._state = RegistrationState(state.registrations, False, state.refusals + 1, reason)
        self._changed.tell()

    def alive(self) -> bool:
        """True while the kubelet can reach us: registered, and connected as far as that can be seen."""
        if not self._state.registered:
            return False
        connections = open_connections(self._dra_socket, ignored_pid=self._ignored_pid)
        return connections is None or connections > 0
