"""The order in which devices are published, and with it the packing of a node.

The scheduler takes the first device that fits, in the order of slice names and then of positions
(k8s.io/dynamic-resource-allocation, structured allocator); there is no scoring. So this order is the packing policy,
and it must be the same after every restart: NVIDIA's driver publishes whole GPUs in the random order of a Go map and
rewrites its slice at each start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dra_driver.hardware.model import Gpu

_BUS_ID = re.compile(r"([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-9a-f]+)", re.IGNORECASE | re.ASCII)

OrderKey = tuple[int, tuple[int, ...], str, str]


def order_gpus(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """GPUs by PCI bus id: neighbours on a PCIe switch or an NVLink board stay neighbours, so requests for several
    GPUs that start from the front get close ones."""
    return tuple(sorted(gpus, key=gpu_order))


def gpu_order(gpu: Gpu) -> OrderKey:
    """Sort key: the numbers of the bus id; a text that is none comes last, in its own order. UUIDs break ties."""
    match = _BUS_ID.fullmatch(gpu.pci_bus_id)
    numbers = tuple(int(part, 16) for part in match.groups()) if match else ()
    return (0 if match else 1, numbers, gpu.pci_bus_id, gpu.uuid)
