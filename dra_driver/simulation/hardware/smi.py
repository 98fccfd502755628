"""nvidia-smi of a simulated node: ``python -m dra_driver.simulation.hardware.smi STATE [-L | --version | mig ...]``.

The real one's table (no options) is here two things only: the versions and the list. ``smi_mig`` shows and changes MIG.

It reads through NVML like the real one, so faults show here too. What it cannot do it refuses; exit codes: 0 done,
2 not understood, 9 no driver (as nvidia-smi), 15 a GPU was lost, else NVML's code for what it refused to change.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance
from dra_driver.hardware.nvml import NvmlCallError, NvmlHardware, Reading
from dra_driver.simulation.hardware import install, smi_mig, uninstall

_NO_DRIVER = 9
_GPU_LOST = 15
_NOT_UNDERSTOOD = 2


def main(arguments: Sequence[str], out: TextIO, err: TextIO) -> int:
    """``arguments`` without the program's name: the state file, then nvidia-smi's own."""
    if not arguments:
        err.write("usage: python -m dra_driver.simulation.hardware.smi STATE [-L | --version | -mig 0|1 | mig ...]\n")
        return _NOT_UNDERSTOOD
    state_file, options = Path(arguments[0]), tuple(arguments[1:])
    hardware = NvmlHardware()
    try:
        install(state_file)
        hardware.start()
        return _run(options, hardware.read(), out, err)
    except smi_mig.NotUnderstood as error:
        err.write(f"{error}\n")
        return _NOT_UNDERSTOOD
    except NvmlCallError as error:
        if error.function == "nvmlInitWithFlags":
            return _no_driver(error, err)
        err.write(f"{error}\n")
        return error.code
    except HardwareError as error:
        return _no_driver(error, err)
    finally:
        hardware.stop()
        uninstall()


def _no_driver(error: HardwareError, err: TextIO) -> int:
    err.write(f"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver: {error}\n")
    return _NO_DRIVER


def _run(options: tuple[str, ...], reading: Reading, out: TextIO, err: TextIO) -> int:
    if options[:1] == ("mig",):
        return smi_mig.mig(options[1:], reading.machine, out, err)
    if "-mig" in options:
        return smi_mig.set_mode(options, reading.machine, out)
    if options not in ((), ("-L",), ("--list-gpus",), ("--version",)):
        raise smi_mig.NotUnderstood(
            f"simulated nvidia-smi cannot do {' '.join(options)}; try no option, -L, --version, -mig or mig"
        )
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
        instances = sorted(gpu.mig.instances if gpu.mig else (), key=lambda each: each.id)
        devices = [
            (_name(gpu, each, compute), compute.uuid) for each in instances for compute in each.compute_instances
        ]
        lines += [f"  MIG {name:<11} Device {number:>2}: (UUID: {uuid})" for number, (name, uuid) in enumerate(devices)]
    return "".join(f"{line}\n" for line in lines) or "No devices found.\n"


def _name(gpu: Gpu, instance: GpuInstance, compute: ComputeInstance) -> str:
    profile = gpu.mig.profile(instance.profile_id) if gpu.mig else None
    partial = profile is not None and compute.slices < profile.slice_count
    return f"{compute.slices}c.{instance.profile_name}" if partial else instance.profile_name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout, sys.stderr))
