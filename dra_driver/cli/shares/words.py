"""The words of ``gpu-dra shares``: what a taint means, what stops a holder, amounts. Pure.

What is said about fences is what docs/user/sharing.md says.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.claim_config import SharingStrategy
from controller.retention import UNAVAILABLE_TAINT
from dra_driver.allocator.model import Taint
from dra_driver.cli.shares.use import COUNTED, Blocked, DeviceUse, Share, Why
from dra_driver.devices import fence_taints, mig_taints
from dra_driver.devices.mig_resources import COUNTERS, is_memory_slice_capacity
from dra_driver.devices.shares import COMPUTE, MEMORY, SHARES
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
_QUARTER = 2**28  # of 1Gi, which has two decimals at most

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
    if row.fence is not None:
        return f"{row.fence}, {_IN_MIG}" if row.is_mig else str(row.fence)
    shares = row.use(SHARES)
    if row.shared_by == SharingStrategy.MPS:
        part = f"1/{shares.value}" if shares else "its part"
        text = f"MPS: {_EACH_PROCESS} {part} {_OF_WHAT}"
    elif row.shared_by == SharingStrategy.TIME_SLICING:
        text = _TIME_SLICES
    elif row.shared_by == COUNTED:
        text = "none"
    else:
        return row.shared_by
    return f"{text} ({_IN_MIG})" if row.is_mig else text


def fence_mark(share: Share, row: DeviceUse) -> tuple[str, str] | None:
    """A word and a sentence about a share that is not fenced as its device is now; None for others, and where its claim
    does not say."""
    told = share.fence
    if told is None:
        return None
    if told.enforced == "False":
        return told.reason or "not enforced", told.message or "its claim does not say why"
    if told.fence == row.fence:
        return None
    now = "no longer offered in fractions" if row.fence is None else f"fenced by {row.fence} for new ones"
    return f"fenced by {told.fence}", f"as it was when the claim was prepared; the device is {now}"


def amount(name: str, quantity: Quantity) -> str:
    """``3 shares``, ``memory 10Gi``, ``compute 25%``."""
    if name == SHARES:
        return f"{quantity} share" if quantity == Quantity.of(1) else f"{quantity} shares"
    return f"{name} {number(name, quantity)}{unit(name)}"


def number(name: str, quantity: Quantity) -> str:
    """Exact, and memory as people say it: ``39.5Gi`` for 40448Mi."""
    quarters, rest = divmod(quantity.nanos, Quantity.binary(_QUARTER).nanos)
    if name != MEMORY or rest or quarters < 4:
        return str(quantity)
    return f"{quarters / 4:.2f}".rstrip("0").rstrip(".") + "Gi"


def amounts(found: Iterable[tuple[str, Quantity]]) -> str:
    return ", ".join(amount(name, quantity) for name, quantity in found)


def unit(name: str) -> str:
    return "%" if name == COMPUTE else ""


def is_for_matching(name: str) -> bool:
    """Whether a GPU has a capacity so that one request can match it or a MIG device: engines, memory slices."""
    return (name in COUNTERS and name != MEMORY) or is_memory_slice_capacity(name)
