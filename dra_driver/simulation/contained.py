"""A module with mounts and processes of its own: ``python -m dra_driver.simulation.contained MODULE [ARGUMENT...]``.

The MPS supervisor mounts file systems and starts daemons that outlive it. Here all of that ends with this process,
however it ends. Whoever is not root gets a user namespace for it, which some systems do not allow.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def is_possible() -> bool:
    """Whether this machine lets us."""
    if shutil.which("unshare") is None:
        return False
    command = [*_command(), "true"]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def main(arguments: Sequence[str]) -> int:
    # unshare itself takes no notice of SIGTERM; when it dies the kernel ends its child, process 1 of the others.
    process = subprocess.Popen([*_command(), sys.executable, "-m", *arguments], preexec_fn=_end_with_us)  # noqa: PLW1509
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: process.kill())
    return max(process.wait(), 0)


def _command() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    mounts = ["--mount", "--propagation", "private", "--mount-proc"]
    return ["unshare", *user, *mounts, "--pid", "--fork", "--kill-child"]


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
