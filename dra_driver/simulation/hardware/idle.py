"""What a board that nobody computes on says of itself: temperature, power, clocks, memory that the driver keeps. Pure.

The values are made up but steady: they differ between GPUs and stay within the board's limits. ``telemetry`` and
``device`` answer with them at NVML's interface, and ``smi.script`` writes them down for containers.
"""

from __future__ import annotations

from dra_driver.simulation.hardware.description import ProductDescription, ProfileDescription
from dra_driver.simulation.hardware.placing import whole_gpu

PERFORMANCE_STATE = 0  # data-centre boards idle in P0
SM_CLOCK_MHZ = 345  # an idle H100 shows it; its memory runs at full clock

_CELSIUS = 29
_POWER_PERCENT = 15
_RESERVED_SHARE = 128  # the driver keeps 1/128 of the memory for itself, about what real boards show


def celsius(index: int) -> int:
    return _CELSIUS + index % 4


def power_milliwatts(limit: int, index: int) -> int:
    """Of a board with the power limit ``limit``."""
    return limit * (_POWER_PERCENT + index % 4) // 100


def reserved_bytes(total: int) -> int:
    """What the driver keeps of ``total`` bytes of memory."""
    return total // _RESERVED_SHARE


def bar1_bytes(product: ProductDescription) -> int:
    """The window onto the whole memory: the next power of two. Unified-memory GPUs have none."""
    return 0 if product.memory_bytes is None else 1 << (product.memory_bytes - 1).bit_length()


def mig_bar1_bytes(product: ProductDescription, profile: ProfileDescription) -> int:
    """A MIG device's part of it: that of its memory slices."""
    return bar1_bytes(product) * profile.placements.size // whole_gpu(product).placements.size
