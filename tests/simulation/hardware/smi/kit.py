"""Calling the simulated nvidia-smi both ways: as the program on a node, and as the script in a container."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

from dra_driver.simulation.hardware import create_state, host_root
from dra_driver.simulation.hardware.description import MachineDescription
from dra_driver.simulation.hardware.smi.program import main

Answer = tuple[int, str, str]
"""Exit code, stdout, stderr."""


def build(folder: Path, machine: str | MachineDescription = "a100-sxm4-40gb") -> tuple[Path, Path]:
    """A node's file tree and its state file."""
    state_file = folder / "state.json"
    create_state(machine, state_file, seed="n")
    host_root.build(folder / "root", state_file)
    return folder / "root", state_file


def call_smi(*arguments: str) -> Answer:
    """The program in this process: the state file, then nvidia-smi's options."""
    out, err = io.StringIO(), io.StringIO()
    return main(arguments, out, err), out.getvalue(), err.getvalue()


def call_script(shell: list[str], script: Path, *options: str, path: str = "/none") -> Answer:
    """As in an image without any program of its own, and with nowhere to write."""
    done = subprocess.run([*shell, str(script), *options], capture_output=True, text=True, env={"PATH": path})
    return done.returncode, done.stdout, done.stderr


def _shells() -> list[list[str]]:
    """``sh`` as the machine has it, which may be dash."""
    named = {Path(path).resolve(): path for name in ("dash", "sh") if (path := shutil.which(name))}
    found = [[path] for path in named.values()]
    busybox = shutil.which("busybox")
    return found + ([[busybox, "sh"]] if busybox else [])


SHELLS = _shells()
"""The shells of this machine that images have."""
