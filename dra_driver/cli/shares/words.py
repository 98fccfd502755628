"""The words of ``gpu-dra shares``: what a taint means, what stops a holder, amounts. Pure.

What is said about fences is what docs/user/sharing.md says.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.claim_config import SharingStrategy
from controller.retention import UNAVAILABLE_TAINT
from dra_driver.allocator.model import Taint
from dra_driver.cli.shares.holding import Blocked, DeviceUse, Why
from dra_driver.devices import fence_taints, mig_taints
from dra_driver.devices.mig_resources import COUNTERS, is_memory_slice_capacity
from dra_driver.devices.shares import SHARES
from dra_driver.quantity import Quantity

NOTHING_SHARED = (
    "No device is offered in shares; the ConfigMap of NVIDIA's device plugin or spec.sharing.rules offers them, "
    "as docs/user/sharing.md says."
)
DRAINING = "draining"

_TIME_SLICES = "none: time slices divide time only"
_EACH_PROCESS = "each process gets at most"
_OF_WHAT = "of the multiprocessors and of the memory"
_IN_MIG = "inside of a part that fences its processes off from the rest"
_PERCENT = "compute"  # a capacity of which there are 100

# Name of a taint of ours: the word for it, and what follows from it.
_TAINTS = {
    UNAVAILABLE_TAINT: (
        DRAINING,
        "it is to be offered otherwise, or no longer; whoever has some keeps it, and nobody new gets any",
    ),
    fence_taints.GONE: (
        "fence gone",
        "a container on it may have more than its share, since its limit was taken away; delete that one's pod",
    ),
    fence_taints.UNHEALTHY: (
        "MPS unhealthy",
        "its MPS daemon is dead or stuck; delete the pods that have it, then it is offered again",
    ),
    mig_taints.FOREIGN: ("foreign MIG instance", "a GPU instance that no claim made is in the way"),
    mig_taints.REFUSED: ("MIG placement refused", "the hardware refused to make it; the node's Events say why"),
}
_WHY = {
    Why.HARDWARE: "hardware in use",
    Why.POOL: "pool not usable",
    Why.POLICY: "no request fits",
}


def taint_words(taint: Taint, driver: str) -> tuple[str, str]:
    """A short word, and a sentence."""
    domain, _, name = taint.key.rpartition("/")
    if domain == driver and name in _TAINTS:
        return _TAINTS[name]
    return str(taint), "it is tainted by somebody else"


def blocked_words(blocked: Blocked, driver: str) -> str:
    """Empty where the holders say it all."""
    if blocked.taint is not None:
        return taint_words(blocked.taint, driver)[0]
    return _WHY.get(blocked.why, "")


def fence(row: DeviceUse) -> str:
    """What stops a holder from using more than its share."""
    if row.is_exclusive:
        return "no other claim has it"
    shares = row.use(SHARES)
    if row.shared_by == SharingStrategy.MPS:
        part = f"1/{shares.value}" if shares else "its part"
        text = f"MPS: {_EACH_PROCESS} {part} {_OF_WHAT}"
    elif row.shared_by == SharingStrategy.TIME_SLICING:
        text = _TIME_SLICES
    else:
        return row.shared_by
    return f"{text} ({_IN_MIG})" if row.is_mig else text


def amount(name: str, quantity: Quantity) -> str:
    """``3 shares``, ``memory 10Gi``, ``compute 25%``."""
    if name == SHARES:
        return f"{quantity} share" if quantity == Quantity.of(1) else f"{quantity} shares"
    return f"{name} {quantity}{unit(name)}"


def amounts(found: Iterable[tuple[str, Quantity]]) -> str:
    return ", ".join(amount(name, quantity) for name, quantity in found)


def unit(name: str) -> str:
    return "%" if name == _PERCENT else ""


def is_for_matching(name: str) -> bool:
    """Whether a GPU has a capacity so that one request can match it or a MIG device: engines, memory slices."""
    return (name in COUNTERS and name != "memory") or is_memory_slice_capacity(name)
