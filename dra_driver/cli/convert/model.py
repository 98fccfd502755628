"""What the converter talks about: places in a document, what is wrong there, what a container asks for. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from api import strict

DRIVER: Final = "gpu.nvidia.com"
WHOLE: Final = "gpu.nvidia.com"
FRACTION: Final = "fraction.gpu.nvidia.com"
SHARED: Final = "shared.gpu.nvidia.com"
MIG: Final = "mig.nvidia.com"
SHARED_MIG: Final = "shared.mig.nvidia.com"

MIB: Final = 1024**2
MOST_DEVICES: Final = 32  # AllocationResultsMaxSize of resource.k8s.io/v1

Path = tuple[str | int, ...]


def dotted(path: Path) -> str:
    """``spec.containers[0].resources.limits["nvidia.com/gpu"]``."""
    return strict.join("", *path)


@dataclass(frozen=True, slots=True)
class Note:
    """A comment above the line at ``path``."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a document, or a part of it, is not converted. ``remedy``: what a person does next."""

    path: Path
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{dotted(self.path)}: " if self.path else ""
        return f"{place}{self.message}; {self.remedy}"


class CannotConvertError(Exception):
    """Something of a workload has no translation; ``problems`` are all that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class Place(StrEnum):
    """The part of a request that a remark is about."""

    REQUEST = "request"
    COUNT = "count"
    MEMORY = "memory"
    COMPUTE = "compute"
    SELECTORS = "selectors"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Remark:
    about: Place
    text: str


class Priority(StrEnum):
    """``FractionConfig.priority``."""

    NORMAL = "Normal"
    LOW = "Low"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a claim. At most one of ``memory`` (bytes) and ``portion`` (of a GPU's memory) is there; neither:
    all of the device. ``compute`` in percent, 0 for no ceiling. ``path``: where it was asked for."""

    name: str
    device_class: str
    path: Path
    count: int = 1
    memory: int | None = None
    portion: Fraction | None = None
    compute: int = 0
    selectors: tuple[str, ...] = ()
    priority: Priority | None = None
    memory_limit: int | None = None
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """A container as far as its GPUs go. ``amounts``: old resources and how much of each; ``misplaced`` ones stand in
    ``requests`` alone, where the API server refuses them. ``path`` is the container's place in its document.
    ``variables``: names of those in its environment that another driver obeys."""

    name: str
    path: Path
    amounts: Mapping[str, int]
    misplaced: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    def at(self, resource: str) -> Path:
        return (*self.path, "resources", "requests" if resource in self.misplaced else "limits", resource)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, or a pod template. ``annotations``: those of the other drivers and schedulers."""

    path: Path
    containers: tuple[Container, ...]
    annotations: Mapping[str, str]
    scheduler: str

    def annotation(self, name: str) -> Path:
        return (*self.path, "metadata", "annotations", name)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one dialect makes of a pod: asks by the container's path, and what is to be said about the pod."""

    asks: Mapping[Path, tuple[Ask, ...]]
    told: tuple[str, ...] = ()
