"""The part of the simulated nvidia-smi that says how a GPU is shared: ``compute-policy`` and the compute mode.

    nvidia-smi compute-policy [-i GPU,...] -l | --set-timeslice 0|1|2|3
    nvidia-smi [-i GPU,...] -c 0|DEFAULT|2|PROHIBITED|3|EXCLUSIVE_PROCESS

Options, sentences and the table are those of nvidia-smi 535; exit codes are those of its manual: NVML's code for a
refusal, 255 for what none stands for. The first GPU that refuses ends the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_uint
from typing import Any, TextIO

from dra_driver.hardware.model import Gpu
from dra_driver.hardware.nvml import NvmlCallError, Reading, binding
from dra_driver.hardware.nvml.binding import call
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.compute_mode import ComputeMode, compute_mode, set_compute_mode
from dra_driver.simulation.hardware import time_slice
from dra_driver.simulation.hardware.smi.options import NotUnderstood, Options

_MODES = {"0": ComputeMode.DEFAULT, "2": ComputeMode.PROHIBITED, "3": ComputeMode.EXCLUSIVE_PROCESS}
_BY_NAME = {**_MODES, **{mode.name: mode for mode in _MODES.values()}}

_OTHER = 255

_HEADING = """\
+-------------------------------------+
| GPU compute policies:               |
| GPU     Name           Value        |
|=====================================|
"""
_END = "+-------------------------------------+\n"


def compute_policy(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """``compute-policy ...``, without the word itself."""
    options = Options.parse(words, values=("-i", "--set-timeslice"), flags=("-l", "--list"))
    sets, lists = "--set-timeslice" in options.given, bool({"-l", "--list"} & options.given.keys())
    if sets == lists:
        raise NotUnderstood("One, and only one, compute-policy command allowed at a time")
    gpus = options.gpus(reading.machine)
    return _set(gpus, options.given["--set-timeslice"], out) if sets else _list(gpus, out)


def set_mode(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """``-c MODE``."""
    options = Options.parse(words, values=("-i", "-c"))
    mode = _BY_NAME.get(options.given["-c"].upper())
    if mode is None:
        raise NotUnderstood(f"Invalid compute mode: {options.given['-c']}")
    for gpu in options.gpus(reading.machine):
        bus_id = f"0000{gpu.pci_bus_id.upper()}"
        try:
            if compute_mode(gpu.uuid) is mode:
                out.write(f"Compute mode is already set to {mode.name} for GPU {bus_id}.\n")
                continue
            set_compute_mode(gpu.uuid, mode)
        except NvmlCallError as error:
            out.write(f"Unable to set the compute mode for GPU {bus_id}: {_words(error.code)}\n")
            return min(error.code, _OTHER)
        out.write(f"Set compute mode to {mode.name} for GPU {bus_id}.\n")
    out.write("All done.\n")
    return 0


def _set(gpus: Sequence[Gpu], value: str, out: TextIO) -> int:
    # Numbers only: the real one takes no words (its --help: 0=DEFAULT, 1=SHORT, 2=MEDIUM, 3=LONG).
    wanted = int(value) if value.isdecimal() else len(time_slice.INTERVALS)
    word = time_slice.INTERVALS[wanted] if wanted < len(time_slice.INTERVALS) else value
    for gpu in gpus:
        code = _call(time_slice.SET, gpu, wanted)
        if code:
            out.write(
                f"Failed to set timeslice policy with value {word} for GPU {gpu.index} : {_words(code)}\n"
                f"Failed to set timeslice for requested devices : {_words(code)}\n"
            )
            return min(code, _OTHER)
        out.write(f"Successfully set timeslice policy with value {word} for GPU {gpu.index}\n")
    return 0


def _list(gpus: Sequence[Gpu], out: TextIO) -> int:
    rows = []
    for gpu in gpus:
        interval = c_uint()
        code = _call(time_slice.LIST, gpu, byref(interval))
        if code:
            out.write(
                f"Failed to get compute policies for GPU {gpu.index} : {_words(code)}\n"
                f"Failed to retrieve compute policies for requested devices : {_words(code)}\n"
            )
            return min(code, _OTHER)
        rows.append(f"|{gpu.index:>4}     {'Timeslice':<15}{time_slice.INTERVALS[interval.value]:<13}|\n")
    out.writelines((_HEADING, *rows, _END))
    return 0


def _call(function: str, gpu: Gpu, argument: Any) -> int:
    """NVML's code. pynvml has no wrapper for what NVML does not publish."""
    handle = call("nvmlDeviceGetHandleByUUID", gpu.uuid, device=gpu.uuid)
    return int(getattr(binding.library(), function)(handle, argument))


def _words(code: int) -> str:
    return "Unknown Error" if code == Return.UNKNOWN else str(call("nvmlErrorString", code))
