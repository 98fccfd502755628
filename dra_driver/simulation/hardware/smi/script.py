"""The simulated node's ``usr/bin/nvidia-smi``: a POSIX shell script, so that it also runs inside users' containers.

CDI mounts it into them, where neither our Python nor the state file is. There it shows, from a table, the GPUs whose
device node the container has and of their MIG devices those whose two capability nodes it has, counted from 0 as the
real one counts what it sees. A limit on the container's cgroup is the memory that it shows. It uses no here documents,
for which some shells need a writable /tmp, and of other programs only ``date`` and ``ls``, if there are any.

What it prints is ``layout`` and ``log_layout``, as on a node; ``script_table`` is the table, which is written again
whenever what it shows changes, into the same file: containers hold it by bind mounts.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from dra_driver.simulation.hardware.smi import layout, log_layout, script_table
from dra_driver.simulation.hardware.smi.fields import APP_FIELDS, GPU_FIELDS, AppField, Field
from dra_driver.simulation.hardware.smi.layout import Line
from dra_driver.simulation.hardware.smi.log_layout import Section
from dra_driver.simulation.hardware.smi.script_table import variable
from dra_driver.simulation.hardware.state import SimulatedState

SMI_PATH = "usr/bin/nvidia-smi"  # below the host's root

# Where this very code lies, so that the script works from any folder, from a checkout as from an installation.
_PACKAGES = Path(__file__).resolve().parents[4]


def smi_script(state: SimulatedState, state_file: Path, *, python: Path | None = None, dev: Path = Path("/dev")) -> str:
    """The script's text. ``python``: the one that has this package; ``dev``: where a container's device nodes are."""
    parts = {
        "PYTHON": shlex.quote(str(python or sys.executable)),
        "PACKAGES": shlex.quote(str(_PACKAGES)),
        "STATE": shlex.quote(str(state_file.absolute())),
        "DEV": shlex.quote(str(dev)),
        "MACHINE": script_table.machine_assignments(state),
        "MIG_VARIABLES": _device_assignments(),
        "GPU_FIELDS": _cases(GPU_FIELDS),
        "APP_FIELDS": _cases(APP_FIELDS),
        "DISPLAYS": ",".join(log_layout.DISPLAYS),
        "VERSION": _printing(layout.VERSION),
        "LIST_GPU": _printing(layout.LIST_GPU),
        "LIST_MIG": _printing(layout.LIST_MIG),
        "TABLE_HEAD": _printing(layout.TABLE_HEAD),
        "GPU_ROWS": _printing(layout.GPU_ROWS),
        "MIG_HEAD": _printing(layout.MIG_HEAD),
        "MIG_ROWS": _printing(layout.MIG_ROWS),
        "NO_MIG_ROWS": _printing(layout.NO_MIG_ROWS),
        "PROCESSES": _printing((*layout.PROCESS_HEAD, layout.NO_PROCESS_ROW, layout.PROCESS_END)),
        "LOG_HEAD": _printing(log_layout.LOG_HEAD),
        "LOG_GPU": _printing((log_layout.LOG_GPU,)) + _sections(log_layout.BEFORE_MIG_DEVICES),
        "LOG_MIG": _sections((log_layout.MIG_DEVICE,)),
        "LOG_END": _sections((*log_layout.AFTER_MIG_DEVICES, log_layout.NO_PROCESSES)),
        "LOG_GPU_ENDS": _printing((log_layout.LOG_END,)),
        "TABLE": script_table.table(state),
    }
    template = (resources.files(__package__) / "nvidia-smi.sh").read_text()
    return re.sub("@([A-Z_]+)@", lambda match: parts[match[1]].removesuffix("\n"), template)


def with_table(script: str, state: SimulatedState) -> str:
    """``script`` with the table of ``state``; the paths in it stay those of the process that made it."""
    head, _, rest = script.partition(script_table.BEGINS)
    _, _, tail = rest.partition(script_table.ENDS)
    return f"{head}{script_table.table(state)}{tail}" if tail else script


def _printing(lines: Iterable[Line]) -> str:
    """The lines as a shell prints them. Their texts have no backslash."""
    commands = []
    for line in lines:
        words = [shlex.quote(f"{line.text}\\n"), *(f'"${variable(name)}"' for name in line.names)]
        commands.append(f"  printf {' '.join(words)}\n")
    return "".join(commands)


def _sections(sections: Iterable[Section]) -> str:
    """Each under the condition that ``-d`` asks for it."""
    return "".join(
        f"  if wanted{'' if each.name is None else f' {each.name}'}; then\n{_printing(each.lines)}  fi\n"
        for each in sections
    )


def _cases(fields: Iterable[Field | AppField]) -> str:
    """What a field's name stands for. Variables that are not set are empty: there are none of processes."""
    return "".join(
        f"    {' | '.join((each.name, *each.aliases))})"
        f" heading={shlex.quote(each.name)} unit={shlex.quote(each.unit)} value=${variable(each.name)} ;;\n"
        for each in fields
    )


def _device_assignments() -> str:
    """The texts of a MIG device are the words after its two minors."""
    names = (name for name in layout.DEVICE_NAMES if name not in script_table.FOUND_BY_SHELL)
    return " ".join(f"{variable(name)}=${{{position}}}" for position, name in enumerate(names, 3))
