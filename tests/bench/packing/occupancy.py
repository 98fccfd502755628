"""What still fits on one GPU, and what a placement there would end: a fast model, remembered for each state.

A state is the set of devices in use, as a bit mask over :attr:`Product.devices`. A GPU has a few thousand states that a
run visits millions of times. ``fitting`` is the allocator's arithmetic of shared counters; ``line`` is the judgement of
``dra_driver.devices.packing``. Tests prove both equal.
"""

from __future__ import annotations

from functools import cache

from tests.bench.packing.products import WHOLE, Product

Loss = tuple[int, ...]
Ranked = tuple[tuple[Loss, int], ...]  # devices with what each one ends


class Occupancy:
    """Answers about states of one product's GPU."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.fitting = cache(self._fitting)
        self.line = cache(self._line)
        self._sizes = _sizes(product)

    def _fitting(self, held: int) -> int:
        """The devices that fit beside those in use, as a mask: memory slices free, and enough of every counter."""
        taken = self._memory_slices(held)
        left = list(self.product.counters)
        for index, device in enumerate(self.product.devices):
            if held >> index & 1:
                left = [value - used for value, used in zip(left, device.counters, strict=True)]
        return sum(
            1 << index
            for index, device in enumerate(self.product.devices)
            if not taken & device.memory_slices
            and all(used <= value for used, value in zip(device.counters, left, strict=True))
        )

    def _line(self, held: int, kind: int) -> Ranked:
        """The free places of one kind, the one that ends least first, each judged by what those before it leave."""
        taken = self._memory_slices(held)
        waiting = [
            (index, device.memory_slices)
            for index, device in enumerate(self.product.devices)
            if device.kind == kind and not taken & device.memory_slices
        ]
        ranked: list[tuple[Loss, int]] = []
        while waiting:
            loss, _, chosen = min((self._loss(taken, mask), -mask, (index, mask)) for index, mask in waiting)
            ranked.append((loss, chosen[0]))
            waiting.remove(chosen)
            taken |= chosen[1]
            waiting = [entry for entry in waiting if not entry[1] & taken]
        return tuple(ranked)

    def _loss(self, taken: int, mask: int) -> Loss:
        return tuple(sum(1 for place in size if place & mask and not place & taken) for size in self._sizes)

    def _memory_slices(self, held: int) -> int:
        taken = 0
        for index, device in enumerate(self.product.devices):
            if held >> index & 1:
                taken |= device.memory_slices
        return taken


def _sizes(product: Product) -> tuple[tuple[int, ...], ...]:
    """The memory slices of every place, by size, largest first."""
    sizes: dict[tuple[int, int], set[int]] = {}
    for device in product.devices:
        if product.kinds[device.kind] != WHOLE:
            size = (device.slices, device.memory_slices.bit_count())
            sizes.setdefault(size, set()).add(device.memory_slices)
    return tuple(tuple(sorted(sizes[size])) for size in sorted(sizes, reverse=True))
