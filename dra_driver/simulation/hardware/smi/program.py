"""The command line of the simulated nvidia-smi: what is asked for, and which command does it.

It reads through NVML like the real one, so faults show here too. What it cannot do it refuses; exit codes: 0 done,
2 not understood, 6 no such GPU, 9 no driver, 15 a GPU was lost (all as nvidia-smi), else NVML's code for what it
refused to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance
from dra_driver.hardware.nvml import NvmlCallError, NvmlHardware, Reading
from dra_driver.simulation.hardware import install, uninstall
from dra_driver.simulation.hardware.smi import mig, policy
from dra_driver.simulation.hardware.smi.options import NoSuchGpu, NotUnderstood, Options, option_name

_NOT_UNDERSTOOD = 2
_NOT_FOUND = 6
_NO_DRIVER = 9
_GPU_LOST = 15


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
    except NotUnderstood as error:
        err.write(f"{error}\n")
        return _NOT_UNDERSTOOD
    except NoSuchGpu as error:
        out.write("No devices were found\n")
        err.write(f"{error}\n")
        return _NOT_FOUND
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


def _summary(words: Sequence[str], reading: Reading, out: TextIO, err: TextIO) -> int:
    """Without a command: the versions and the list."""
    if words:
        known = ", ".join([*_SUBCOMMANDS, *_ACTIONS])
        raise NotUnderstood(f"simulated nvidia-smi cannot do {' '.join(words)}; it knows {known}, and no option at all")
    driver, cuda = _versions(reading)
    out.write(f"NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: {cuda}\n")
    return _list((), reading, out, err)


def _version(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    Options.parse(words, values=(), flags=("--version",))
    driver, cuda = _versions(reading)
    out.write(f"NVIDIA-SMI version  : {driver}\nDRIVER version      : {driver}\nCUDA Version        : {cuda}\n")
    return 0


def _versions(reading: Reading) -> tuple[str, str]:
    machine = reading.machine
    cuda = f"{machine.cuda_driver_version // 1000}.{machine.cuda_driver_version % 1000 // 10}"
    return machine.driver_version, cuda


def _list(words: Sequence[str], reading: Reading, out: TextIO, err: TextIO) -> int:
    options = Options.parse(words, values=("-i",), flags=("-L",))
    lines: list[str] = []
    for gpu in options.gpus(reading.machine):
        lines.append(f"GPU {gpu.index}: {gpu.product_name} (UUID: {gpu.uuid})")
        instances = sorted(gpu.mig.instances if gpu.mig else (), key=lambda each: each.id)
        devices = [
            (_name(gpu, each, compute), compute.uuid) for each in instances for compute in each.compute_instances
        ]
        lines += [f"  MIG {name:<11} Device {number:>2}: (UUID: {uuid})" for number, (name, uuid) in enumerate(devices)]
    out.write("".join(f"{line}\n" for line in lines) or "No devices found.\n")
    for problem in reading.problems:
        err.write(f"Unable to determine the device handle for GPU {problem.index}: {problem.message}\n")
    return _GPU_LOST if reading.problems else 0


def _name(gpu: Gpu, instance: GpuInstance, compute: ComputeInstance) -> str:
    profile = gpu.mig.profile(instance.profile_id) if gpu.mig else None
    partial = profile is not None and compute.slices < profile.slice_count
    return f"{compute.slices}c.{instance.profile_name}" if partial else instance.profile_name


Command = Callable[[Sequence[str], Reading, TextIO, TextIO], int]
"""The command's words, what NVML said, stdout, stderr; it returns the exit code. NotUnderstood, NoSuchGpu and
HardwareError may leave it."""

# By the first word of the command line; a command gets the words after it.
_SUBCOMMANDS: Mapping[str, Command] = {
    "mig": mig.mig,
    "compute-policy": policy.compute_policy,
}

# By the option that says what is to be done, wherever it stands; a command gets all words.
_ACTIONS: Mapping[str, Command] = {
    "-L": _list,
    "--version": _version,
    "-mig": mig.set_mode,
    "-c": policy.set_mode,
}


def _run(words: tuple[str, ...], reading: Reading, out: TextIO, err: TextIO) -> int:
    if words and words[0] in _SUBCOMMANDS:
        return _SUBCOMMANDS[words[0]](words[1:], reading, out, err)
    named = [name for word in words if (name := option_name(word)) in _ACTIONS]
    command = _ACTIONS[named[0]] if named else _summary
    return command(words, reading, out, err)
