"""Random arrivals of claims: mixes of profiles, loads around saturation. The same seed is the same trace for every policy.

Arrivals are a Poisson process and lifetimes exponential with a mean of one hour: the least structured traffic, so
nothing in it favours an order.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.bench.packing.products import WHOLE, Product


@dataclass(frozen=True, slots=True)
class Arrival:
    """Times in hours."""

    at: float
    kind: int
    lifetime: float


@dataclass(frozen=True, slots=True)
class Mix:
    """Share of each kind among arrivals, by words that hold for every product: see :func:`kind_named`."""

    name: str
    shares: dict[str, int]


MIXES_OF_SEVEN = (
    Mix("1g only", {"1g": 1}),
    Mix("1g/2g/4g", {"1g": 1, "2g": 1, "4g": 1}),
    Mix("1g/2g/3g", {"1g": 1, "2g": 1, "3g": 1}),
    Mix("all", {"1g": 1, "1g double": 1, "1g+me": 1, "2g": 1, "3g": 1, "4g": 1, "7g": 1}),
    Mix("mostly small", {"1g": 6, "1g double": 2, "2g": 3, "3g": 1, "4g": 1}),
    Mix("mostly big", {"1g": 1, "2g": 1, "3g": 3, "4g": 3, "7g": 1}),
    Mix("with whole GPUs", {"1g": 3, "2g": 2, "3g": 1, WHOLE: 1}),
)
MIXES_OF_FOUR = (
    Mix("1g only", {"1g": 1}),
    Mix("1g/2g", {"1g": 1, "2g": 1}),
    Mix("1g/2g/4g", {"1g": 1, "2g": 1, "4g": 1}),
    Mix("all", {}),
    Mix("mostly big", {"1g": 1, "2g": 3, "4g": 2}),
    Mix("with whole GPUs", {"1g": 3, "2g": 2, WHOLE: 1}),
)


def mixes(product: Product) -> tuple[Mix, ...]:
    return MIXES_OF_SEVEN if product.slices == 7 else MIXES_OF_FOUR


def kind_named(word: str, product: Product) -> int:
    """``2g`` is the plain profile with two slices; ``1g double`` the one with two slices of memory; others by suffix."""
    if word == WHOLE:
        return product.kind(WHOLE)
    slices, _, variant = word.partition("g")
    same = [profile for profile in product.profiles if profile.slice_count == int(slices)]
    if variant == " double":
        found = [profile for profile in same if profile.name.isalnum() or "+" not in profile.name]
        chosen = max(found, key=lambda profile: profile.memory_mib)
    elif variant:
        chosen = next(profile for profile in same if profile.name.endswith(variant))
    else:
        plain = [profile for profile in same if "+" not in profile.name and "-" not in profile.name]
        chosen = min(plain, key=lambda profile: profile.memory_mib)
    return product.kind(chosen.name)


def trace(product: Product, mix: Mix, *, gpus: int, load: float, arrivals: int, seed: int) -> tuple[Arrival, ...]:
    """``load`` is offered compute slices per compute slice that the node has."""
    kinds, weights = _weighted(product, mix)
    rate = load * gpus * product.slices / mean_slices(product, mix)
    random = Random(f"{product.machine}/{mix.name}/{load}/{seed}")
    result, now = [], 0.0
    for kind in random.choices(kinds, weights, k=arrivals):
        now += random.expovariate(rate)
        result.append(Arrival(now, kind, random.expovariate(1.0)))
    return tuple(result)


def mean_slices(product: Product, mix: Mix) -> float:
    """Compute slices of a claim, on average."""
    kinds, weights = _weighted(product, mix)
    return sum(product.slices_of(kind) * weight for kind, weight in zip(kinds, weights, strict=True)) / sum(weights)


def _weighted(product: Product, mix: Mix) -> tuple[list[int], list[int]]:
    shares = mix.shares or dict.fromkeys(product.kinds, 1)
    kinds = [product.kind(word) if word in product.kinds else kind_named(word, product) for word in shares]
    return kinds, list(shares.values())
