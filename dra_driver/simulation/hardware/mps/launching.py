"""How a daemon starts an nvidia-cuda-mps-server: a process of its own, and a link to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dra_driver.simulation.hardware.mps import link
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
