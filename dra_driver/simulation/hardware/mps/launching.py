"""How a daemon has an nvidia-cuda-mps-server: starts it, a process of its own with a link to it, and speaks with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dra_driver.simulation.hardware.mps import link
from dra_driver.simulation.hardware.mps.commands import ClientOfServer
from dra_driver.simulation.hardware.mps.link import Link

_MODULE = "dra_driver.simulation.hardware.mps.server"


def launch(state_file: Path, logs: Path) -> tuple[subprocess.Popen[bytes], Link]:
    """``logs``: where it writes server.log. It waits for its settings, the first message of the link."""
    mine, its = link.pair()
    # As the daemon was started itself: without site-packages, with PYTHONPATH.
    process = subprocess.Popen(
        [sys.executable, "-S", "-m", _MODULE, str(state_file), str(logs), str(its.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(its.fileno(),),
    )
    its.close()
    return process, Link(mine)


class ServerProcess:
    """What a daemon knows of a server of any protocol, as far as that is the process."""

    process: subprocess.Popen[bytes]
    link: Link
    ending: bool

    @property
    def pid(self) -> int:
        return self.process.pid

    def terminate(self, client: int) -> None:
        self.link.send({"do": "terminate", "pid": client})

    def shut_down(self, *, force: bool) -> None:
        self.ending = True
        self.link.send({"do": "shutdown", "force": force})
        if force:
            self.process.send_signal(signal.SIGKILL)


def clients_in(said: Mapping[str, Any]) -> tuple[ClientOfServer, ...]:
    """Those that a server names in what it says of itself."""
    return tuple(ClientOfServer(**{**each, "devices": tuple(each["devices"])}) for each in said["clients"])
