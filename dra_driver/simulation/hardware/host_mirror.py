"""What the node's file tree shows of its state, kept in step with it at every change.

That is the capabilities of MIG instances and the table of the nvidia-smi that containers get. ``host_root`` makes the
whole tree; this touches only what the change touches. Call it where nobody else changes the state.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from dra_driver.simulation.hardware.capabilities import CAPABILITY_MODE, instance_files
from dra_driver.simulation.hardware.smi import script_table
from dra_driver.simulation.hardware.smi.script import SMI_PATH, with_table
from dra_driver.simulation.hardware.state import GpuState, SimulatedState

logger = logging.getLogger(__name__)


def follow(state_file: Path, before: SimulatedState, after: SimulatedState) -> None:
    """Bring the tree from ``before`` to ``after``. Does nothing for a state without a tree.

    A tree that is not there (any more) is left alone: a state file may be looked at from where its tree is not. OSError
    when a tree that is there cannot be written.
    """
    if after.host_tree is None:
        return
    root = state_file.parent / after.host_tree
    changed = [index for index, gpu in enumerate(after.gpus) if gpu is not before.gpus[index]]
    changed = [index for index in changed if _shows_differently(before.gpus[index], after.gpus[index])]
    if not changed:
        return
    if not root.is_dir():
        logger.debug("no file tree at %s to show the change in", root)
        return
    for index in changed:
        minor = after.description(index).minor
        old, new = instance_files(minor, before.gpus[index]), instance_files(minor, after.gpus[index])
        _remove(root, old.keys() - new.keys())
        for name, content in new.items():
            if name not in old:
                _write(root / name, content)
    if any(script_table.shows_differently(before.gpus[index], after.gpus[index]) for index in changed):
        _write_table(root / SMI_PATH, after)


def _shows_differently(before: GpuState, after: GpuState) -> bool:
    return before.instances is not after.instances or script_table.shows_differently(before, after)


def _write(path: Path, content: str) -> None:
    """Without a rename, which costs as much as the rest of the call: nobody looks for the file before it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # left by a process that was killed
    path.write_text(content)
    path.chmod(CAPABILITY_MODE)


def _remove(root: Path, names: set[str]) -> None:
    for name in sorted(names, reverse=True):  # a compute instance's before its GPU instance's
        path = root / name
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: a GPU instance whose other compute instances stay
            path.parent.rmdir()


def _write_table(script: Path, state: SimulatedState) -> None:
    """In place and in one write: containers have this very file."""
    try:
        with script.open("r+b", buffering=0) as file:
            old = file.read()
            new = with_table(old.decode(), state).encode()
            if len(new) == len(old):
                os.pwrite(file.fileno(), new, 0)
            else:
                logger.warning("%s is of another version and is left as it is", script)
    except FileNotFoundError:
        return  # a tree that is only being built
