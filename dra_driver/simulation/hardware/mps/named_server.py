"""A named server of protocol 3, as its daemon knows it, and a client that waits for one."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from dra_driver.simulation.hardware.mps.commands import ClientOfServer
from dra_driver.simulation.hardware.mps.launching import ServerProcess
from dra_driver.simulation.hardware.mps.link import Link
from dra_driver.simulation.hardware.mps.namespace import Namespace
from dra_driver.simulation.hardware.mps.namespace_folder import NamespaceFolder
from dra_driver.simulation.hardware.mps.pipes import CONTROL, LOG, Answer
from dra_driver.simulation.hardware.mps.values import Invalid

STARTING = "Initializing"


@dataclass(slots=True)
class NamedServer(ServerProcess):
    """``folders``: by namespace, and the server's own under ""."""

    name: str
    uid: int
    allowed: str | None
    offered: tuple[str, ...]
    path: Path
    process: subprocess.Popen[bytes]
    link: Link
    status: str = STARTING
    clients: tuple[ClientOfServer, ...] = ()
    ending: bool = False
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    folders: dict[str, NamespaceFolder] = field(default_factory=dict)

    def add(self, namespace: Namespace) -> None:
        """Invalid where the server's folder has a file of that name; the pages name ``control`` and ``log``."""
        if namespace.name in (CONTROL, LOG):
            raise Invalid(f"The folder of MPS server {self.name} has a file of the name {namespace.name}")
        folder = NamespaceFolder(self.path / namespace.name)
        folder.open()
        self.namespaces[namespace.name], self.folders[namespace.name] = namespace, folder

    def drop(self, namespace: str) -> None:
        del self.namespaces[namespace]
        self.folders.pop(namespace).remove()


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A client whose server is not ready yet."""

    server: str
    namespace: str
    text: str
    answer: Answer
    lifeline: int

    def refuse(self, text: str) -> None:
        self.answer.send("error", text, ".")
        self.answer.close()
        os.close(self.lifeline)
