"""``make gpu-check``: on any machine with an NVIDIA GPU, what differs between it and our simulation of it.

It reads and changes nothing: no mode, no clock, no instance, no reset. It needs no root; MIG instances are readable by
root only. Exit code 0: nothing is broken (differences are not faults); 1: something is; 2: there is no GPU to look at.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dra_driver.errors import DriverError
from e2e.gpu_check.report import render
from e2e.gpu_check.runner import Limits, Outcome, OutOfTime, Runner
from e2e.gpu_check.side import real_side

_NO_GPU = 2
_WHAT = (
    "What differs between an NVIDIA GPU of this machine and our simulation of it. Reads, and changes nothing. "
    "Exit code 0: nothing is broken, 1: something is, 2: there is no GPU to look at."
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.gpu_check", description=_WHAT)
    root = Path("/")
    parser.add_argument("--driver-root", type=Path, default=root, help="where the NVIDIA driver is: / or a container's")
    parser.add_argument("--host-root", type=Path, default=root, help="where the node's / is, for /sys and /proc")
    parser.add_argument("--seconds", type=float, default=Limits().check, help="for one check; 270 s for all of them")
    parser.add_argument("--whole", action="store_true", help="UUIDs in full, and every difference")
    flags = parser.parse_args(arguments)
    side = real_side(flags.driver_root, flags.host_root)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        runner = Runner(side, Path(folder), limits=Limits(check=flags.seconds))
        try:
            reading = runner.start()
        except DriverError as error:
            print(f"gpu-check: there is nothing to look at: {error}", file=sys.stderr)
            return _NO_GPU
        except OutOfTime as error:
            print(f"gpu-check: the driver is loaded and gives {error}", file=sys.stderr)
            return 1
        if not reading.machine.gpus:
            print("gpu-check: NVML works, and counts no GPU that can be read:", file=sys.stderr)
            print("".join(f"  {each.message}\n" for each in reading.problems) or "  none at all", file=sys.stderr)
            return _NO_GPU
        results = runner.results()
    print(render(reading.machine, results, whole=flags.whole), end="")
    return int(any(result.outcome is Outcome.BROKEN for result in results))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # what is wrong is in the report
    faulthandler.enable()  # a crash in the driver's library should say where
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a check that hangs in the driver must not keep the process
