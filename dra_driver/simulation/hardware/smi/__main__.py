"""The process: what ``usr/bin/nvidia-smi`` starts on a simulated node."""

from __future__ import annotations

import sys

from dra_driver.simulation.hardware.smi.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout, sys.stderr))
