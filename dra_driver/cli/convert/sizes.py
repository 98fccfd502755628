"""How large GPUs are, as the command line says: what a percentage becomes, since DRA has no relative amounts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from api.strict import show
from dra_driver.cli.convert import selectors
from dra_driver.cli.convert.model import MIB
from dra_driver.quantity import Quantity

STEP: Final = 256 * MIB  # of the driver's policy, unless it is set
MOST_SIZES: Final = 8  # FirstAvailableDeviceRequestMaxSize of resource.k8s.io/v1
_LARGEST = 2**62
_LONGEST_NAME = 64  # DeviceAttributeMaxValueLength


class SizeError(Exception):
    """An option that says nothing usable; the text names it."""


@dataclass(frozen=True, slots=True)
class Size:
    """Memory of one kind of GPU in bytes; ``selector`` is empty where all GPUs are of this kind."""

    memory: int
    selector: str = ""
    product: str = ""

    def part(self, portion: Fraction) -> int:
        """``portion`` of it, in whole steps as far as there is one: rounded up, the last fraction would not fit."""
        part = int(self.memory * portion)
        step = STEP if part >= STEP else MIB
        return max(part // step * step, MIB)

    def __str__(self) -> str:
        size = str(Quantity.binary(self.memory))
        return f"{size} of {show(self.product)}" if self.product else size


def parse(gpu_memory: Iterable[str], products: Iterable[str]) -> tuple[Size, ...]:
    """Alternatives in the order of preference. Raises :class:`SizeError`."""
    texts = [part.strip() for text in gpu_memory for part in text.split(",") if part.strip()]
    named = [_product(text) for text in products]
    if texts and named:
        raise SizeError("--gpu-memory and --product are one or the other: give a product for each size")
    if len(texts) + len(named) > MOST_SIZES:
        raise SizeError(f"at most {MOST_SIZES} sizes of GPUs: a claim has no more alternatives")
    if named:
        return tuple(named)
    sizes = sorted({_bytes("--gpu-memory", text) for text in texts})
    if len(sizes) < 2:
        return tuple(map(Size, sizes))
    # Between two kinds the middle divides, so that a size may be the one on the box or what the driver publishes of it.
    borders = [str(Quantity.binary((one + other) // 2 // MIB * MIB)) for one, other in pairwise(sizes)]
    return tuple(
        Size(size, selectors.memory_between(more_than, most))
        for size, more_than, most in zip(sizes, [None, *borders], [*borders, None], strict=True)
    )


def _product(text: str) -> Size:
    name, equals, size = (part.strip() for part in text.rpartition("="))
    if not equals or not (name.isascii() and name.isprintable()) or not 0 < len(name) <= _LONGEST_NAME:
        raise SizeError(f'--product {show(text)}: write NAME=SIZE, such as "NVIDIA H100 80GB HBM3=79Gi"')
    return Size(_bytes(f"--product {show(text)}", size), selectors.of_products([name]), name)


def _bytes(option: str, text: str) -> int:
    try:
        size = Quantity.parse(text).value()
    except ValueError:
        size = 0
    if not STEP <= size <= _LARGEST:
        raise SizeError(f"{option}: {show(text)} is no memory of a GPU; write it with its unit, such as 79Gi")
    return size
