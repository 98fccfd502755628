"""The part of the containers' nvidia-smi that knows the machine: a shell function's lines, one or more for each GPU.

For each GPU: what never changes as assignments, then, each on a line of its own, what can change at run time, what the
limit of a cgroup makes of its memory, ``gpu``, its MIG devices, ``end``. The variables are the names of ``layout`` with
underscores, after ``v_``. There is room for some limits; a container whose limit has none sees all of the GPU's memory.

Lines that can change are of one length, and there are always as many: a shell that reads the script while it is
written again finds each line where it was.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dra_driver.simulation.hardware.capabilities import compute_instance_minor, gpu_instance_minor
from dra_driver.simulation.hardware.cgroup_limits import UNLIMITED
from dra_driver.simulation.hardware.placing import most_mig_devices
from dra_driver.simulation.hardware.smi.facts import GpuFacts, Memory
from dra_driver.simulation.hardware.smi.from_state import gpu_facts, versions
from dra_driver.simulation.hardware.smi.layout import device_texts, gpu_texts, machine_texts
from dra_driver.simulation.hardware.state import GpuState, SimulatedState

BEGINS = "  : table"
ENDS = "  : end of table"
_LINE = 160  # characters; a MIG device with the longest profile's name leaves some
_LIMITS, _LIMIT_LINE = 16, 512  # the path of a pod's container has some 200 characters

_MEMORY = ("memory.total", "memory.reserved", "memory.used", "memory.free", "table.memory")
# Names of ``layout`` whose text follows the state: memory, compute mode, MIG mode, what NVML does not tell with MIG.
_CHANGING = (
    *_MEMORY,
    "compute_mode",
    "table.compute_mode",
    "mig.mode.current",
    "mig.mode.pending",
    "table.ecc",
    "utilization.gpu",
    "utilization.memory",
    "table.utilization",
)
# Names that the shell finds by itself.
FOUND_BY_SHELL = ("index", "count", "timestamp", "date", "device.index")


def variable(name: str) -> str:
    """The shell's name for a name of ``layout``."""
    return f"v_{re.sub('[^a-z0-9]', '_', name)}"


def shows_differently(before: GpuState, after: GpuState) -> bool:
    """Whether the table of a state with ``after`` is another than with ``before``."""
    return _shown(before) != _shown(after)


def _shown(gpu: GpuState) -> tuple[object, ...]:
    return gpu.compute_mode, gpu.mig_enabled, gpu.mig_pending, tuple(gpu.mig_devices()), gpu.memory_limits


def machine_assignments(state: SimulatedState) -> str:
    """What there is to say of the whole machine."""
    texts = machine_texts(versions(state), count=0, timestamp="", date="")
    return " ".join(_assigned(name, text) for name, text in texts.items() if name not in FOUND_BY_SHELL)


def table(state: SimulatedState) -> str:
    known: dict[str, str] = {}
    lines = [BEGINS]
    for index in range(len(state.gpus)):
        lines += _gpu(state, index, known)
    return "\n".join([*lines, ENDS])


def _gpu(state: SimulatedState, index: int, known: dict[str, str]) -> Iterator[str]:
    """``known``: what the variables hold after the GPU before; only what differs is assigned again."""
    facts = gpu_facts(state, index)
    texts = gpu_texts(facts, machine_texts(versions(state), count=0, timestamp="", date=""))
    own = {name: text for name, text in texts.items() if name not in (*FOUND_BY_SHELL, *_CHANGING)}
    short, bus_id = facts.pci_bus_id[4:], facts.pci_bus_id
    own["ids"] = " ".join((facts.uuid, bus_id, bus_id.lower(), short, short.lower()))  # that -i may name
    for name, text in own.items():
        if known.get(name) != text:
            yield f"  {_assigned(name, text)}"
    known.update(own)
    yield from (f"  {_assigned(name, texts[name])}".ljust(_LINE) for name in _CHANGING)
    yield from _limits(state, index, facts)
    yield "  gpu"
    minor = facts.minor
    for device in facts.mig_devices:
        words = [
            str(gpu_instance_minor(minor, device.gpu_instance)),
            str(compute_instance_minor(minor, device.gpu_instance, device.compute_instance)),
            *(shlex.quote(text) for name, text in device_texts(device).items() if name not in FOUND_BY_SHELL),
        ]
        yield f"  mig {' '.join(words)}".ljust(_LINE)
    yield from ["  :".ljust(_LINE)] * (most_mig_devices(state.product(index)) - len(facts.mig_devices))
    yield "  end"


def _limits(state: SimulatedState, index: int, facts: GpuFacts) -> Iterator[str]:
    """``limit`` with the cgroup's inode, its line in /proc/self/cgroup, and the assignments of what is seen in it."""
    hierarchy = state.hierarchy
    limits = [each for each in state.gpus[index].memory_limits if each.hard != UNLIMITED][:_LIMITS]
    for each in limits:
        memory = Memory(total=each.hard, reserved=0, used=0, free=each.hard)
        texts = gpu_texts(replace(facts, memory=memory), machine_texts(versions(state), count=0, timestamp="", date=""))
        path = f"/{Path(each.cgroup).relative_to(hierarchy.root)}"
        line = f"{hierarchy.stands_in}:{path}|" if hierarchy.stands_in else f"|0::{path}|"
        assignments = " ".join(_assigned(name, texts[name]) for name in _MEMORY)
        yield f"  limit {each.inode} {shlex.quote(line)} {shlex.quote(assignments)}".ljust(_LIMIT_LINE)
    yield from ["  :".ljust(_LIMIT_LINE)] * (_LIMITS - len(limits))


def _assigned(name: str, text: str) -> str:
    return f"{variable(name)}={shlex.quote(text)}"
