"""What HAMi's and Volcano's annotations say about where: selectors, and what becomes of the rest.

CheckType and CheckUUID of Project-HAMi/HAMi (pkg/device/devices.go): names match as a part of the card's type, whatever
the case, UUIDs exactly; an empty text is no constraint. Volcano reads the same names, and its own for UUIDs (type.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from api.strict import show
from dra_driver.cli.convert import selectors
from dra_driver.cli.convert.model import Ask, CannotConvertError, Place, Pod, Problem, Remark

USE_TYPE, NO_TYPE = "nvidia.com/use-gputype", "nvidia.com/nouse-gputype"
USE_UUID = ("nvidia.com/use-gpuuuid", "volcano.sh/vgpu-use-gpuuuid")
NO_UUID = ("nvidia.com/nouse-gpuuuid", "volcano.sh/vgpu-nouse-gpuuuid")
MODES = ("nvidia.com/vgpu-mode", "volcano.sh/vgpu-mode")

_UUID = re.compile(r"GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TYPE_PREFIX = re.compile(r"nvidia-", re.IGNORECASE)  # HAMi's type of a card is NVIDIA-<product name>
_MOST_NAMES = 64  # a selector has 10 KiB
_LONGEST_NAME = 64
_PIN = (
    "These UUIDs are of single GPUs: when one is replaced, the pod stays pending. Selecting by productName or by node "
    "is safer."
)
_AVOIDED = "These UUIDs are of single GPUs: what replaces one is not avoided any more."
_WITHOUT_MEANING = {
    "hami.io/node-scheduler-policy": "the scheduler's own scoring chooses the node",
    "hami.io/gpu-scheduler-policy": "the scheduler takes the first device that fits, in the driver's order, which "
    "fills one GPU before the next. For a GPU of its own ask for the whole one (class gpu.nvidia.com)",
    "hami.io/device-scoring-weights": "the scheduler takes the first device that fits, in the driver's order",
    "nvidia.com/numa-bind": "for GPUs that are near each other add a constraint matchAttribute "
    "resource.kubernetes.io/pcieRoot to the claim",
    "volcano.sh/vgpu-podgroup-policy": "pods that must not share a GPU can be kept apart by nodes (podAntiAffinity)",
}


@dataclass(frozen=True, slots=True)
class Placement:
    """``use`` and ``avoid``: names of products and UUIDs. ``mig``: only MIG devices will do."""

    use: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    use_uuids: tuple[str, ...] = ()
    avoid_uuids: tuple[str, ...] = ()
    mig: bool = False

    def applied(self, ask: Ask) -> Ask:
        found = list(ask.selectors)
        if self.use:
            found.append(selectors.of_products(self.use))
        if self.avoid:
            found.append(selectors.not_of_products(self.avoid))
        if self.use_uuids:
            found.append(selectors.of_uuids(self.use_uuids, ask.device_class))
        if self.avoid_uuids:
            found.append(selectors.not_of_uuids(self.avoid_uuids, ask.device_class))
        texts = [_PIN] * bool(self.use_uuids) + [_AVOIDED] * bool(self.avoid_uuids)
        remarks = (Remark(Place.SELECTORS, text) for text in texts)
        return replace(ask, selectors=tuple(found), remarks=(*ask.remarks, *remarks))


def read_placement(pod: Pod) -> Placement:
    """Raises :class:`CannotConvertError`."""
    problems: list[Problem] = []
    reader = _Reader(pod, problems)
    found = Placement(
        tuple(reader.names(USE_TYPE)),
        tuple(reader.names(NO_TYPE)),
        tuple(uuid for name in USE_UUID for uuid in reader.uuids(name)),
        tuple(uuid for name in NO_UUID for uuid in reader.uuids(name)),
        reader.is_mig(),
    )
    if problems:
        raise CannotConvertError(problems)
    return found


def told(pod: Pod, *, applied: bool) -> Iterator[str]:
    """What becomes of the annotations that select nothing, as sentences; ``applied``: those that select did."""
    unused = [name for name in (USE_TYPE, NO_TYPE, *USE_UUID, *NO_UUID) if name in pod.annotations]
    if unused and not applied:
        yield f"{', '.join(unused)}: no container asks HAMi or Volcano for a GPU, so this had no meaning, and is gone."
    state = []
    for name, value in pod.annotations.items():
        if name in _WITHOUT_MEANING:
            yield f"{name}: {show(value)} has no meaning here and is gone: {_WITHOUT_MEANING[name]}."
        elif name in MODES and ("hami-core" in value or "mps" in value):
            yield f"{name}: {show(value)} is gone: how a fraction is fenced, the driver decides on each node."
        elif name.startswith("hami.io/") or (name.startswith("volcano.sh/") and name not in (*USE_UUID, *NO_UUID)):
            state.append(name)
    if state:
        yield f"What another scheduler wrote down about a running pod is gone: {', '.join(state[:_MOST_NAMES])}."


class _Reader:
    def __init__(self, pod: Pod, problems: list[Problem]) -> None:
        self._pod, self._problems = pod, problems

    def names(self, annotation: str) -> Iterator[str]:
        for entry in self._entries(annotation):
            name = _TYPE_PREFIX.sub("", entry, count=1) if _TYPE_PREFIX.match(entry) else entry
            if not (name.isascii() and name.isprintable()) or not 0 < len(name) <= _LONGEST_NAME:
                self._wrong(annotation, f"{show(entry)} is no part of a product name", "write it as nvidia-smi -L does")
            else:
                yield name

    def uuids(self, annotation: str) -> Iterator[str]:
        for entry in self._entries(annotation):
            if _UUID.fullmatch(entry):
                yield entry
            else:
                self._wrong(annotation, f"{show(entry)} is no UUID of a GPU", "write them as nvidia-smi -L does")

    def is_mig(self) -> bool:
        """The modes are looked for in the text, so there may be several (checkType in HAMi's device.go)."""
        is_mig = False
        for annotation in MODES:
            value = self._pod.annotations.get(annotation, "")
            if "hami-core" in value or "mps" in value or not value.strip():
                continue
            if "mig" in value:
                is_mig = True
            else:
                self._wrong(annotation, f"must be hami-core, mig or mps, not {show(value)}", "write one, or remove it")
        return is_mig

    def _entries(self, annotation: str) -> list[str]:
        value = self._pod.annotations.get(annotation, "")
        if not value.strip():
            return []
        entries = [entry for entry in map(str.strip, value.split(",")) if entry]
        if not entries or len(entries) > _MOST_NAMES:
            count = f"names {len(entries)}, of 1 to {_MOST_NAMES}"
            self._wrong(annotation, count, "shorten or remove it")
            return []
        return entries

    def _wrong(self, annotation: str, message: str, remedy: str) -> None:
        self._problems.append(Problem(self._pod.annotation(annotation), message, remedy))
