"""nvidia-smi of a simulated node: ``python -m dra_driver.hardware.simulated.smi STATE [-L | --version]``.

The real one's table (no options) is here two things only: the versions and the list.

It reads through NVML like the real one, so faults show here too. What it cannot do it refuses; exit codes: 0 done,
2 not understood, 9 no driver (as nvidia-smi), 15 a GPU was lost.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml import NvmlHardware, Reading
from dra_driver.hardware.simulated import install, uninstall

_NO_DRIVER = 9
_GPU_LOST = 15
_NOT_UNDERSTOOD = 2


def main(arguments: Sequence[str], out: TextIO, err: TextIO) -> int:
    """``arguments`` without the program's name: the state file, then nvidia-smi's own."""
    if not arguments:
        err.write("usage: python -m dra_driver.hardware.simulated.smi STATE [-L | --version]\n")
        return _NOT_UNDERSTOOD
    state_file, options = Path(arguments[0]), tuple(arguments[1:])
    if options not in ((), ("-L",), ("--list-gpus",), ("--version",)):
        err.write(f"simulated nvidia-smi cannot do {' '.join(options)}; try no option, -L or --version\n")
        return _NOT_UNDERSTOOD
    hardware = NvmlHardware()
    try:
        install(state_file)
        hardware.start()
        reading = hardware.read()
    except HardwareError as error:
        err.write(f"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver: {error}\n")
        return _NO_DRIVER
    finally:
        hardware.stop()
        uninstall()
    if options == ("--version",):
        out.write(_version(reading))
        return 0
    if not options:
        out.write(_heading(reading))
    out.write(_list(reading))
    for problem in reading.problems:
        err.write(f"Unable to determine the device handle for GPU {problem.index}: {problem.message}\n")
    return _GPU_LOST if reading.problems else 0


def _version(reading: Reading) -> str:
    driver, cuda = _versions(reading)
    return f"NVIDIA-SMI version  : {driver}\nDRIVER version      : {driver}\nCUDA Version        : {cuda}\n"


def _heading(reading: Reading) -> str:
    driver, cuda = _versions(reading)
    return f"NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: {cuda}\n"


def _versions(reading: Reading) -> tuple[str, str]:
    machine = reading.machine
    cuda = f"{machine.cuda_driver_version // 1000}.{machine.cuda_driver_version % 1000 // 10}"
    return machine.driver_version, cuda


def _list(reading: Reading) -> str:
    lines: list[str] = []
    for gpu in reading.machine.gpus:
        lines.append(f"GPU {gpu.index}: {gpu.product_name} (UUID: {gpu.uuid})")
        devices = [
            (instance.profile_name, compute.uuid)
            for instance in (gpu.mig.instances if gpu.mig else ())
            for compute in instance.compute_instances
        ]
        lines += [
            f"  MIG {profile:<12}Device {number:>2}: (UUID: {uuid})" for number, (profile, uuid) in enumerate(devices)
        ]
    return "".join(f"{line}\n" for line in lines) or "No devices found.\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout, sys.stderr))
