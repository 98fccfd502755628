"""GPUs and parts of GPUs as HAMi and Volcano ask for them: a number of cards, and how much of each.

What the amounts mean is in GenerateResourceRequests, MutateAdmission and Fit of Project-HAMi/HAMi
(pkg/device/nvidia/device.go) and in ExtractResourceRequest of volcano-sh/volcano (pkg/scheduler/api/devices/util.go): a
memory of 0 is none given, MiB go before percent, no memory at all is all of it, and without a number it is one card.
nvidia.com/gpu alone is the device plugin's as well, and means the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from dra_driver.cli.convert import reading, selectors
from dra_driver.cli.convert.device_plugin import checked_count
from dra_driver.cli.convert.model import (
    FRACTION,
    MIB,
    MIG,
    WHOLE,
    Ask,
    CannotConvertError,
    Container,
    Place,
    Priority,
    Problem,
    Remark,
)
from dra_driver.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names of resources; an empty one does not exist there. ``who`` in sentences, ``request`` in the claim."""

    who: str
    request: str
    count: str
    memory: str = ""
    percentage: str = ""
    cores: str = ""
    priority: str = ""

    def used(self, container: Container) -> list[str]:
        names = (self.count, self.memory, self.percentage, self.cores, self.priority)
        return [name for name in names if name in container.amounts]


HAMI: Final = Dialect(
    "HAMi",
    "gpu",
    reading.GPU,
    reading.GPUMEM,
    reading.GPUMEM_PERCENTAGE,
    reading.GPUCORES,
    reading.PRIORITY,
)
VOLCANO: Final = Dialect(
    "Volcano",
    "vgpu",
    reading.VGPU_NUMBER,
    reading.VGPU_MEMORY,
    reading.VGPU_MEMORY_PERCENTAGE,
    reading.VGPU_CORES,
)
OLD_VOLCANO: Final = Dialect("Volcano", "gpu-share", reading.GPU_NUMBER, reading.GPU_MEMORY)

_PRIORITIES = {0: Priority.NORMAL, 1: Priority.LOW}
_PERCENT = 100
_EXTENDED = (
    "The limit nvidia.com/gpu works as it is as well, on Kubernetes 1.36 and later: DeviceClass gpu.nvidia.com stands "
    "for it."
)


def asks(container: Container, *, mig: bool) -> Iterator[Ask]:
    """What ``container`` asks for; ``mig``: its cards have to be MIG devices. Raises :class:`CannotConvertError`."""
    for dialect in (HAMI, VOLCANO, OLD_VOLCANO):
        found = _ask(container, dialect, mig=mig)
        if found is not None:
            yield found


def _ask(container: Container, dialect: Dialect, *, mig: bool) -> Ask | None:
    used = dialect.used(container)
    if not [name for name in used if name != dialect.priority]:
        return None
    count = container.amounts.get(dialect.count, 1)
    if not count:
        return None
    amount = _Amounts(container, dialect)
    found = Ask(dialect.request, FRACTION, container.at(used[0]), checked_count(container, dialect.count, count))
    if mig:
        return amount.mig_device(found)
    if not amount.memory and amount.percent in (0, _PERCENT) and amount.cores in (0, _PERCENT):
        return amount.whole(found)
    fraction = amount.fraction(found)
    if container.variables:
        obeyed = " and ".join(container.variables)
        text = f"{obeyed} in the container's env: HAMi obeys that, and here nothing does. The limits hold all the same."
        fraction = replace(fraction, remarks=(*fraction.remarks, Remark(Place.REQUEST, text)))
    return fraction


class _Amounts:
    def __init__(self, container: Container, dialect: Dialect) -> None:
        self._container, self._dialect = container, dialect
        self.memory = container.amounts.get(dialect.memory, 0) * MIB
        self.percent = self._percentage(dialect.percentage)
        self.cores = self._percentage(dialect.cores)
        self.priority = self._priority()

    def whole(self, found: Ask) -> Ask:
        used = self._dialect.used(self._container)
        remarks = [Remark(Place.REQUEST, _EXTENDED)] if used == [reading.GPU] else []
        if self.priority is not None:
            text = f"{self._dialect.priority} is gone: nobody else is on a whole GPU."
            remarks.append(Remark(Place.REQUEST, text))
        return replace(found, device_class=WHOLE, remarks=tuple(remarks))

    def fraction(self, found: Ask) -> Ask:
        remarks = [*self._about_memory(), *self._about_compute(), *self._about_priority()]
        relative = not self.memory and 0 < self.percent < _PERCENT
        return replace(
            found,
            path=self._container.at(self._dialect.percentage) if relative else found.path,
            memory=self.memory or None,
            portion=Fraction(self.percent, _PERCENT) if relative else None,
            compute=self.cores,
            priority=self.priority,
            remarks=tuple(remarks),
        )

    def mig_device(self, found: Ask) -> Ask:
        who, size = self._dialect.who, str(Quantity.binary(self.memory))
        if not self.memory:
            message = f"{who} chooses the MIG profile by {self._dialect.memory}, which is not given"
            raise CannotConvertError(
                [Problem(found.path, message, f"give it, or name the profile: {reading.MIG_PREFIX}1g.10gb")]
            )
        text = (
            f"{who} takes the smallest MIG profile with {size}, each on a GPU of its own; here it is the first device "
            "with so much memory, in the driver's order. Select the profile by its name where it matters."
        )
        remarks = [Remark(Place.SELECTORS, text)]
        others = (self._dialect.percentage, self._dialect.cores, self._dialect.priority)
        gone = [name for name in others if name in self._container.amounts]
        if gone:
            remarks.append(Remark(Place.REQUEST, f"{', '.join(gone)}: without meaning for a MIG device, and gone."))
        found = replace(found, remarks=tuple(remarks))
        return replace(found, device_class=MIG, selectors=(selectors.memory_from(size),))

    def _about_memory(self) -> list[Remark]:
        who, names = self._dialect.who, self._dialect
        if not self.memory and self.percent in (0, _PERCENT):
            text = f"No {names.memory}: all of the GPU's memory, so nobody else fits on it."
            return [Remark(Place.REQUEST, text)]
        remarks = []
        if self.memory and self.percent:
            text = f"{names.percentage} is gone: {who} goes by {names.memory} where both are given."
            remarks.append(Remark(Place.MEMORY, text))
        if not self.memory:
            return remarks
        text = (
            f"{who} counts all the memory of a GPU, here what is left after a measured reserve counts: fractions that "
            "filled a GPU to the last MiB do not all fit."
        )
        return [*remarks, Remark(Place.MEMORY, text)]

    def _about_compute(self) -> list[Remark]:
        if not self.cores:
            return []
        text = (
            f"{self._dialect.cores} is an average that {self._dialect.who} steers to; compute is a ceiling on the "
            "multiprocessors that is never passed."
        )
        if self.cores == _PERCENT:
            text += f" With 100 {self._dialect.who} lets nobody else on the GPU; here others without compute may come."
        return [Remark(Place.COMPUTE, text)]

    def _about_priority(self) -> list[Remark]:
        if self.priority is None:
            return []
        text = (
            f"{self._dialect.who} holds the kernels of priority 1 back while one of 0 is busy; here it is the priority "
            f"of an MPS client, and nothing that runs is stopped. Without {self._dialect.priority} it is 1 there, and "
            "Normal here."
        )
        return [Remark(Place.CONFIG, text)]

    def _percentage(self, name: str) -> int:
        value = self._container.amounts.get(name, 0)
        if value > _PERCENT:
            self._refuse(name, f"must be a percentage from 0 to {_PERCENT}, not {value}", "write 100 for all of it")
        return value

    def _priority(self) -> Priority | None:
        value = self._container.amounts.get(self._dialect.priority)
        if value is not None and value not in _PRIORITIES:
            self._refuse(self._dialect.priority, f"must be 0 (high) or 1 (low), not {value}", "write one of them")
        return None if value is None else _PRIORITIES[value]

    def _refuse(self, name: str, message: str, remedy: str) -> None:
        raise CannotConvertError([Problem(self._container.at(name), message, remedy)])
