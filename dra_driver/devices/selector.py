"""Which GPUs a rule of the administrator's is about. A value, and what it matches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dra_driver.hardware.model import Gpu


@dataclass(frozen=True, slots=True)
class GpuSelector:
    """Which GPUs a rule is about: those that match every field that is not empty. Names are shell patterns."""

    nodes: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()
    minors: tuple[int, ...] = ()

    def matches(self, node: str, gpu: Gpu) -> bool:
        return (
            _like(node, self.nodes)
            and _like(gpu.product_name, self.products)
            and _like(gpu.architecture, self.architectures)
            and _like(gpu.uuid, self.uuids)
            and (not self.minors or gpu.minor in self.minors)
        )


def _like(text: str, patterns: Iterable[str]) -> bool:
    chosen = tuple(patterns)
    return not chosen or any(fnmatchcase(text, pattern) for pattern in chosen)
