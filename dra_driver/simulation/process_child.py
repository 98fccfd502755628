"""The first code of a child process: ends with its parent, then is the module it was asked to be.

``python -m dra_driver.simulation.process_child <parent pid> <module> [argument...]``. A cluster that is killed cannot
end its processes itself; Linux can (prctl PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, module, rest = int(arguments[0]), arguments[1], arguments[2:]
    _end_with(parent)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the signal was asked for
        sys.exit(f"the parent process {parent} is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
