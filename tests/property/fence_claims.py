"""Claims for fractions as a scheduler allocates them, and which of them a node cannot serve together: the rules of
docs/dev/sharing-modes.md and of the fences once more, on plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

from api.fractions import API_VERSION, SharingBackend
from dra_driver.kube.interface import Obj
from tests.kubelet_plugin.prepare.node import claim, opaque, result

MIB = 2**20
STEP = 256 * MIB
RESERVE = 600 * MIB


@dataclass(frozen=True, slots=True)
class Target:
    """A device that is offered in fractions. ``gpu`` and ``uuid``: of the GPU behind it, and its own."""

    name: str
    gpu: str
    uuid: str
    memory: int
    group: str

    @property
    def usable(self) -> int:
        return (self.memory - RESERVE) // STEP * STEP


@dataclass(frozen=True, slots=True)
class Part:
    target: Target
    memory: int
    compute: int
    share: str

    @property
    def is_all(self) -> bool:
        """Then nobody else can have any of it, and it needs no fence: what is left is no ceiling."""
        return self.memory == self.target.usable and self.compute in (0, 100)

    def limits(self, *, low: bool) -> dict[str, str]:
        """What a container is told of it by an MPS fence."""
        found = {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"{self.target.uuid}={self.memory // MIB}M"}
        if self.compute:
            found["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(self.compute)
        if low:
            found["CUDA_MPS_CLIENT_PRIORITY"] = "1"
        return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """A claim: ``parts`` of devices, and ``whole`` ones. ``unfenced``: it accepts that nothing holds it."""

    uid: str
    parts: tuple[Part, ...]
    whole: tuple[Target, ...] = ()
    unfenced: bool = False
    low: bool = False

    @property
    def fenced(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if not part.is_all)

    def allocated(self) -> Obj:
        """The claim with its allocation."""
        results = [
            result(
                part.target.name,
                f"r{number}",
                shareID=part.share,
                consumedCapacity={"memory": f"{part.memory // MIB}Mi", "compute": str(part.compute)},
            )
            for number, part in enumerate(self.parts)
        ]
        fields = {"minimumEnforcement": "None"} if self.unfenced else {}
        fields |= {"priority": "Low"} if self.low else {}
        requests = [f"r{number}" for number, part in enumerate(self.parts) if not part.is_all]
        config = {"apiVersion": API_VERSION, "kind": "FractionConfig", **fields}
        configs = [opaque(config, requests)] if fields and requests else []
        return claim(self.uid, *results, *(result(each.name, f"w-{each.name}") for each in self.whole), configs=configs)


Ways = Mapping[str, SharingBackend]
"""How claims that are prepared are fenced, by UID; those without a fence are not there."""


def why_not(wanted: Wanted, others: Sequence[Wanted], ways: Ways, backend: SharingBackend) -> str:
    """Why ``wanted`` cannot be had beside ``others``, which are prepared; empty where it can."""
    return next(_reasons(wanted, others, ways, backend), "")


def _reasons(wanted: Wanted, others: Sequence[Wanted], ways: Ways, backend: SharingBackend) -> Iterator[str]:
    if wanted.fenced and backend is SharingBackend.NONE:
        if not wanted.unfenced:
            yield "nothing fences it, and it does not accept that"
        if wanted.low:
            yield "only MPS knows priorities"
    if len(wanted.fenced) > 1 and backend is SharingBackend.MPS:
        yield "a container takes the limits of one fraction"
    for target in wanted.whole:
        if any(target in (*other.whole, *(part.target for part in other.parts)) for other in others):
            yield f"somebody has some of {target.name}"
    for part in wanted.parts:
        yield from _reasons_of(part, wanted, others, ways, backend)


def _reasons_of(
    part: Part, wanted: Wanted, others: Sequence[Wanted], ways: Ways, backend: SharingBackend
) -> Iterator[str]:
    target = part.target
    mine = backend is SharingBackend.MPS and not part.is_all
    memory = compute = 0
    for other in others:
        if target in other.whole:
            yield f"{other.uid} has all of {target.name}"
        for theirs in (each for each in other.parts if each.target == target):
            by_mps = not theirs.is_all and ways.get(other.uid) is SharingBackend.MPS
            if by_mps != mine:
                yield f"{other.uid} uses {target.name} otherwise: by MPS, or without"
            memory, compute = memory + theirs.memory, compute + theirs.compute
    if memory + part.memory > target.memory or compute + part.compute > 100:
        yield f"{target.name} has not that much left"


def random_wanted(random: Random, uid: str, targets: Sequence[Target], held: Sequence[Wanted]) -> Wanted:
    """Mostly what a scheduler would allocate beside those that are there; sometimes what it never should."""
    kind = random.choices(["part", "all", "two", "whole", "both"], [80, 5, 5, 6, 4])[0]
    target, other = random.sample(list(targets), 2)
    unfenced, low = random.random() < 0.4, random.random() < 0.1
    if kind == "whole":
        return Wanted(uid, (), (target,))
    if kind == "all":
        return Wanted(uid, (Part(target, target.usable, 0, _share(random)),))
    parts = [_part(random, target, held, ())]
    if kind == "two":
        parts.append(_part(random, random.choice([target, other]), held, parts))
    whole = (other,) if kind == "both" else ()
    return Wanted(uid, tuple(parts), whole, unfenced=unfenced, low=low)


def _part(random: Random, target: Target, held: Sequence[Wanted], beside: Sequence[Part]) -> Part:
    """``beside``: of the same claim, which no scheduler counts wrong."""
    others = () if random.random() < 0.1 else [part for each in held for part in each.parts]
    there = [part for part in (*others, *beside) if part.target == target]
    memory = target.usable - sum(part.memory for part in there)
    compute = 100 - sum(part.compute for part in there)
    steps = max(1, min(memory // STEP, target.usable // STEP - 1) // random.choice([1, 2, 4, 4]))
    percent = random.choice([0, random.randint(0, max(0, compute))])
    return Part(target, random.randint(1, steps) * STEP, percent, _share(random))


def _share(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))
