"""Fractions as KAI asks for them: by annotations of the pod, for one of its containers.

Names and rules of kai-scheduler/KAI-Scheduler: pkg/common/constants, gpu_request_validator.go, docs/gpu-sharing. Those
of NvFractions (0.18) name the container and have a limit beside the request; its short forms are limits for the older
names (plugins/nvfractions, mutation.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NoReturn

from api.strict import show
from dra_driver.cli.convert.model import (
    FRACTION,
    MIB,
    MOST_DEVICES,
    Ask,
    CannotConvertError,
    Container,
    Place,
    Pod,
    Problem,
    Reading,
    Remark,
)
from dra_driver.cli.convert.reading import GPU
from dra_driver.quantity import Quantity

PORTION: Final = "gpu-fraction"
MEMORY: Final = "gpu-memory"
MEMORY_LIMIT: Final = "gpu-memory.limit"
PORTION_LIMIT: Final = "gpu-fraction.limit"
DEVICES: Final = "gpu-fraction-num-devices"
CONTAINER: Final = "gpu-fraction-container-name"
MODE: Final = "kai.scheduler/gpu-compute-sharing-mode"

_NV = re.compile(r"nvidia\.com/container\.(?P<container>.+)\.gpu-memory\.(?P<what>request|limit)")
_NV_ANY = "nvidia.com/container."
_PORTION_LIMIT_OF = re.compile(r"kai\.scheduler/container\..+\.gpu-memory\.portion\.limit")
_LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class _Fraction:
    """``name``: the annotation that asks. ``container`` as it names one; empty for the one that others name."""

    name: str
    memory: int | None = None
    limit: int | None = None
    portion: Fraction | None = None
    container: str = ""


def read(pod: Pod) -> Reading:
    """Raises :class:`CannotConvertError`."""
    reader = _Reader(pod)
    found = reader.fraction()
    told = tuple(_told(pod))
    if found is None:
        return Reading({}, told)
    container = reader.container(found)
    ask = Ask(
        "gpu",
        FRACTION,
        pod.annotation(found.name),
        reader.devices(),
        found.memory,
        found.portion,
        compute=max(1, int(found.portion * 100)) if found.portion else 0,
        memory_limit=found.limit if found.limit != found.memory else None,
        remarks=tuple(_remarks(found)),
    )
    return Reading({container.path: (ask,)}, told)


def _remarks(found: _Fraction) -> Iterator[Remark]:
    if found.name in (PORTION, MEMORY):
        text = (
            "KAI itself only counts. Here the driver enforces (FractionConfig.minimumEnforcement, Cooperative unless "
            "set): a process that takes more memory than the fraction has gets an out-of-memory error."
        )
        yield Remark(Place.MEMORY, text)
    if not found.portion:
        text = "Memory counts after a measured reserve: fractions that filled a GPU to the last MiB do not all fit."
        yield Remark(Place.MEMORY, text)
    if found.portion:
        text = "KAI gives no share of the compute; this ceiling goes with the memory. Without it there is none."
        yield Remark(Place.COMPUTE, text)
    if found.limit and found.limit != found.memory:
        text = (
            "Counted and guaranteed is the memory of the request above, as with KAI; memoryLimit is the most that can "
            "be had while nobody else needs it."
        )
        yield Remark(Place.CONFIG, text)


def _told(pod: Pod) -> Iterator[str]:
    if MODE in pod.annotations:
        mode = show(pod.annotations[MODE])
        yield f"{MODE}: {mode} is gone: whether fractions run in turns or through MPS, the driver decides on each node."
    for name, value in pod.annotations.items():
        if name == PORTION_LIMIT or _PORTION_LIMIT_OF.fullmatch(name):
            yield (
                f"{show(name)}: {show(value)} is gone: a limit above what is counted is an amount here. Set "
                "memoryLimit in a FractionConfig, and select sharingBackend Cgroup, which alone knows one."
            )
        if name.startswith(_NV_ANY) and not _NV.fullmatch(name):
            yield f"{show(name)} is gone: KAI's binder writes it when the pod is placed."


class _Reader:
    def __init__(self, pod: Pod) -> None:
        self._pod, self._given = pod, pod.annotations

    def fraction(self) -> _Fraction | None:
        found = [*self._classic(), *self._nv_fractions()]
        if not found:
            for name in (DEVICES, CONTAINER, MEMORY_LIMIT, PORTION_LIMIT):
                if name in self._given:
                    self._refuse(name, f"stands alone, without {PORTION} or {MEMORY}", "add one, or remove it")
            return None
        if len(found) > 1:
            names = " and ".join(show(each.name) for each in found)
            self._refuse(
                found[1].name, f"the pod asks twice, by {names}", "keep one; one container may have a fraction"
            )
        for container in self._pod.containers:
            for resource, amount in container.amounts.items():
                if amount or resource != GPU:
                    message = f"the pod asks for a fraction by {show(found[0].name)} and for GPUs by their number"
                    raise CannotConvertError(
                        [Problem(container.at(resource), message, "remove one of the two, as KAI")]
                    )
        return found[0]

    def container(self, fraction: _Fraction) -> Container:
        """By name, else the first one that is no init container."""
        wanted = self._given.get(CONTAINER, "")
        if fraction.container and wanted and wanted != fraction.container:
            self._refuse(CONTAINER, f"{show(wanted)} is not the container of {show(fraction.name)}", "remove it")
        wanted = fraction.container or wanted
        fitting = [
            each
            for each in self._pod.containers
            if (each.name == wanted if wanted else "initContainers" not in each.path)
        ]
        if not fitting:
            name = CONTAINER if wanted and not fraction.container else fraction.name
            message = f"the pod has no container {show(wanted)}" if wanted else "the pod has no container"
            self._refuse(name, message, "correct the name")
        if not fitting[0].name:
            raise CannotConvertError([Problem(fitting[0].path, "has no name", "give it one")])
        return fitting[0]

    def devices(self) -> int:
        text = self._given.get(DEVICES, "1")
        count = self._positive(DEVICES, text)
        if count > MOST_DEVICES:
            message = f"a claim has at most {MOST_DEVICES} devices, not {count}"
            self._refuse(DEVICES, message, "ask for fewer, in several pods")
        return count

    def _classic(self) -> Iterator[_Fraction]:
        if PORTION in self._given:
            yield _Fraction(PORTION, portion=self._portion(self._given[PORTION]))
        if MEMORY in self._given:
            memory = self._positive(MEMORY, self._given[MEMORY]) * MIB
            limit = self._size(MEMORY_LIMIT, self._given[MEMORY_LIMIT]) if MEMORY_LIMIT in self._given else None
            if limit is not None and limit < memory:
                self._refuse(MEMORY_LIMIT, f"is less than {MEMORY}", "write that amount or more")
            yield _Fraction(MEMORY, memory=memory, limit=limit)
        elif PORTION in self._given and MEMORY_LIMIT in self._given:
            self._refuse(MEMORY_LIMIT, f"needs {MEMORY} beside it, not {PORTION}", "write the amount, or remove it")

    def _nv_fractions(self) -> Iterator[_Fraction]:
        by_container: dict[str, dict[str, tuple[str, int]]] = {}
        for name, value in self._given.items():
            match = _NV.fullmatch(name)
            if match:
                by_container.setdefault(match["container"], {})[match["what"]] = (name, self._size(name, value))
        for container, given in by_container.items():
            limit = given.get("limit")
            name, memory = given.get("request") or given["limit"]
            if limit and limit[1] < memory:
                self._refuse(limit[0], "is less than the request", "write the request's amount or more")
            yield _Fraction(name, memory=memory, limit=limit[1] if limit else None, container=container)

    def _portion(self, text: str) -> Fraction:
        try:
            float(text)
            portion = Fraction(Quantity.parse(text).nanos, 10**9)
        except ValueError:
            portion = Fraction(0)
        if not 0 < portion < 1:
            self._refuse(PORTION, f"must be a number between 0 and 1, not {show(text)}", "write one such as 0.5")
        return portion

    def _positive(self, name: str, text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if not number:
            unit = " of MiB, without a unit" if name == MEMORY else ""
            self._refuse(name, f"must be a whole number above 0, not {show(text)}", f"write the number{unit}")
        return number

    def _size(self, name: str, text: str) -> int:
        try:
            size = Quantity.parse(text).value()
        except ValueError:
            size = 0
        if not 0 < size <= _LARGEST:
            self._refuse(name, f"must be an amount of memory, not {show(text)}", "write one such as 4096Mi")
        return size

    def _refuse(self, name: str, message: str, remedy: str) -> NoReturn:
        raise CannotConvertError([Problem(self._pod.annotation(name), message, remedy)])
