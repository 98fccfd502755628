"""The command line of the simulated nvidia-smi: what is asked for, and which command does it.

It reads through NVML like the real one, so faults show here too. What it cannot do it refuses; exit codes: 0 done,
2 not understood, 6 no such GPU, 9 no driver, 15 a GPU was lost (all as nvidia-smi), else NVML's code for what was
refused, at most 255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml import NvmlCallError, NvmlHardware, Reading
from dra_driver.simulation.hardware import install, uninstall
from dra_driver.simulation.hardware.smi import mig, policy, query, show
from dra_driver.simulation.hardware.smi.options import NoSuchField, NoSuchGpu, NotUnderstood, option_name

_NOT_UNDERSTOOD = 2
_NOT_FOUND = 6
_NO_DRIVER = 9
_GPU_LOST = 15
_OTHER = 255


def main(arguments: Sequence[str], out: TextIO, err: TextIO) -> int:
    """``arguments`` without the program's name: the state file, then nvidia-smi's own."""
    if not arguments:
        err.write("usage: python -m dra_driver.simulation.hardware.smi STATE [OPTION ...]\n")
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
    except NoSuchField as error:
        out.write(f"{error}\n\n")  # the real one writes this to stdout, with an empty line
        return _NOT_UNDERSTOOD
    except NoSuchGpu as error:
        out.write("No devices were found\n")
        err.write(f"{error}\n")
        return _NOT_FOUND
    except NvmlCallError as error:
        if error.function == "nvmlInitWithFlags":
            return _no_driver(error, err)
        err.write(f"{error}\n")
        return min(error.code, _OTHER)
    except HardwareError as error:
        return _no_driver(error, err)
    finally:
        hardware.stop()
        uninstall()


def _no_driver(error: HardwareError, err: TextIO) -> int:
    err.write(f"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver: {error}\n")
    return _NO_DRIVER


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
    "-L": show.list_gpus,
    "-q": show.log,
    query.GPU_OPTION: query.query_gpus,
    query.APP_OPTION: query.query_apps,
    query.HELP_OPTION: query.list_fields,
    "--version": show.version,
    "-mig": mig.set_mode,
    "-c": policy.set_mode,
}


def _run(words: tuple[str, ...], reading: Reading, out: TextIO, err: TextIO) -> int:
    if words and words[0] in _SUBCOMMANDS:
        return _SUBCOMMANDS[words[0]](words[1:], reading, out, err)
    named = [name for word in words if (name := option_name(word)) in _ACTIONS]
    if words and not words[0].startswith("-"):
        known = ", ".join([*_SUBCOMMANDS, *_ACTIONS])
        raise NotUnderstood(f"simulated nvidia-smi cannot do {' '.join(words)}; it knows {known}, and no option at all")
    code = (_ACTIONS[named[0]] if named else show.table)(words, reading, out, err)
    return code or _told(reading, err)


def _told(reading: Reading, err: TextIO) -> int:
    """Tell of the GPUs that do not answer."""
    for problem in reading.problems:
        err.write(f"Unable to determine the device handle for GPU {problem.index}: {problem.message}\n")
    return _GPU_LOST if reading.problems else 0
