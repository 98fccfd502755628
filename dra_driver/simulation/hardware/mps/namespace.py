"""A namespace of protocol 3: its limits, and what a client that joins through it gets. Pure.

From NVIDIA's MPS documentation (MPS v3 Interface, MPS v3 Namespaces, Appendix: Environment Variables) and from what the
page "Per-GPU Compute and Memory Limits with MPS" of NVIDIA Dynamo's documentation measured on driver 615.71.09:

- A limit is one value for every GPU that the client opens. A named namespace inherits nothing from its server.
- The client's CUDA_MPS_ACTIVE_THREAD_PERCENTAGE counts only where the namespace has no percentage.
- The client's CUDA_MPS_PINNED_DEVICE_MEM_LIMIT can only lower the namespace's limit; but one entry that names a GPU
  which the client does not see drops every limit of memory, the namespace's too.
- The client's CUDA_MPS_CLIENT_PRIORITY counts before the namespace's.
- cudaMemGetInfo tells the limit as what is free, and the whole GPU as the total.

The pages speak of the memory of "the client process", and of no sum over a namespace. So here each process has the
whole limit for itself, the reading that promises less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.simulation.hardware.mps import context
from dra_driver.simulation.hardware.mps.context import Context, Wish
from dra_driver.simulation.hardware.mps.devices import Device, visible

DEFAULT = "default"
NORMAL, BELOW_NORMAL = 0, 1


@dataclass(frozen=True, slots=True)
class Namespace:
    """``memory`` in bytes on each GPU; None for what is not limited."""

    name: str
    memory: int | None = None
    percentage: float | None = None
    priority: int = NORMAL


def parse_wish(text: str) -> tuple[Wish, int | None]:
    """``context.parse_wish``, with the client's own priority at its end where the driver knows protocol 3."""
    words = text.split()
    own = words.pop() if len(words) == 6 else ""
    return context.parse_wish(" ".join(words)), int(own) if own in ("0", "1") else None


def grant(
    wish: Wish,
    priority: int | None,
    namespace: Namespace,
    offered: Sequence[Device],
    used: Mapping[str, int],
    cgroup: str | None = None,
) -> Context:
    """The context of ``wish`` in ``namespace``, and in ``cgroup``. Raises ``context.Refused``."""
    seen, _ = visible(tuple(offered), wish.devices)
    limits = {} if namespace.memory is None else {device.uuid: namespace.memory for device in seen}
    if any(not visible(seen, name)[0] for name in wish.limits):
        wish, limits = replace(wish, limits={}), {}
    percentage = 100.0
    if namespace.percentage is not None:
        wish, percentage = replace(wish, percentage=None), namespace.percentage
    granted = context.grant(wish, offered, percentage, limits, used, cgroup)
    free = {
        device.uuid: min(each for each in (_left(device, used), granted.limits.get(device.uuid)) if each is not None)
        - granted.allocated
        for device in granted.devices
        if device.memory is not None or device.uuid in granted.limits
    }
    return replace(
        granted, namespace=namespace.name, priority=namespace.priority if priority is None else priority, free=free
    )


def _left(device: Device, used: Mapping[str, int]) -> int | None:
    return None if device.memory is None else device.memory - used.get(device.uuid, 0)
