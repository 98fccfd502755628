"""The arithmetic of memory limits by cgroup, as the driver's dmem backend does it. Pure but for the look at a folder.

Every cgroup has a soft and a hard limit of its own. A soft limit is also added to each cgroup above, and taken away
there when it is lowered; one that is removed with its cgroup stays there (NVIDIA, MPS v3 Memory Partitioning, Ancestor
reservation propagation). A hard limit holds for all processes in the cgroup and below it, so the nearest and all above
count. The misc backend, which has no hierarchy, is not simulated.

Works on the models of ``state`` and on what the programs of ``mps`` read without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dra_driver.hardware.cgroups import inode

UNLIMITED: Final = 0xFFFFFFFFFFFFFFFF  # NVML_DEVICE_MEMORY_LIMIT_MAX


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one GPU's memory. ``inode`` tells the cgroup from a later one of the same path."""

    cgroup: str
    inode: int
    soft: int = 0
    hard: int = UNLIMITED


class Use(Protocol):
    """Of one GPU's memory, by a process in ``cgroup``."""

    @property
    def cgroup(self) -> str | None: ...
    @property
    def allocated(self) -> int: ...


def living(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Those whose cgroup is still there: the others went with it."""
    return tuple(each for each in limits if _inode(each.cgroup) == each.inode)


def limit_of(limits: Iterable[Limit], cgroup: str) -> Limit | None:
    return next((each for each in limits if each.cgroup == cgroup), None)


def changed(
    limits: Iterable[Limit], cgroup: Path, above: Sequence[Path], *, soft: int, hard: int
) -> tuple[Limit, ...] | None:
    """``limits`` with those of ``cgroup``, and the soft one added to those ``above``. None: it is gone meanwhile."""
    known = {each.cgroup: each for each in living(limits)}
    before = known.get(str(cgroup))
    added = soft - (before.soft if before else 0)
    numbers = [(each, inode(each)) for each in (cgroup, *above)]
    for path, number in numbers:
        if number is None:
            return None
        old = known.get(str(path), Limit(str(path), number))
        if path == cgroup:
            known[str(path)] = Limit(str(path), number, soft, hard)
        else:
            known[str(path)] = Limit(str(path), number, max(0, old.soft + added), old.hard)
    return tuple(each for each in known.values() if (each.soft, each.hard) != (0, UNLIMITED))


def reserved(limits: Iterable[Limit], root: Path) -> int:
    """What is guaranteed of a GPU altogether, with what removed cgroups have left: the soft limits below the root."""
    return sum(each.soft for each in living(limits) if Path(each.cgroup).parent == root)


def used(uses: Iterable[Use], cgroup: str) -> int:
    """What the processes in ``cgroup`` and below it have."""
    return sum(each.allocated for each in uses if each.cgroup is not None and _is_in(each.cgroup, cgroup))


def left(limits: Iterable[Limit], uses: Sequence[Use], cgroup: str | None) -> int | None:
    """What a process in ``cgroup`` may still allocate; None where no limit holds."""
    if cgroup is None:
        return None
    holding = [each for each in living(limits) if each.hard != UNLIMITED and _is_in(cgroup, each.cgroup)]
    return min((max(0, each.hard - used(uses, each.cgroup)) for each in holding), default=None)


def reported(limits: Iterable[Limit], cgroup: str | None) -> int | None:
    """What CUDA reports as the GPU's memory in ``cgroup``: only a limit on that very cgroup (NVIDIA Dynamo, Per-GPU
    Compute and Memory Limits with MPS). None: the whole GPU's."""
    own = None if cgroup is None else limit_of(living(limits), cgroup)
    return None if own is None or own.hard == UNLIMITED else own.hard


def _inode(cgroup: str) -> int | None:
    """A process in a container may see a part of the hierarchy only; the machine's first process has it all."""
    found = inode(Path(cgroup))
    try:
        return inode(Path(f"/proc/1/root{cgroup}")) if found is None else found
    except PermissionError:
        return None


def _is_in(cgroup: str, other: str) -> bool:
    return cgroup == other or cgroup.startswith(f"{other}/")
