"""The values that ``gpu-dra shares`` shows: nodes, their devices, and who holds how much of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dra_driver.allocator.model import ClaimKey, Taint
from dra_driver.cli.shares.fences import Fence, ShareFence
from dra_driver.cli.shares.reading import HolderPod
from dra_driver.devices.naming import MigName, read_name
from dra_driver.quantity import Quantity

EXCLUSIVE = "exclusive"
FRACTIONS = "fractions"
COUNTED = "counted"  # NVIDIA's ConsumableShares, where nothing holds anybody to what was counted
NOT_TOLD = "not told"  # of another driver's devices, or an older version's

_NONE = Quantity.of(0)


class Why(StrEnum):
    """Why nobody else gets anything of a device."""

    FULL = "full"
    IN_USE = "inUse"  # somebody has all of it
    HARDWARE = "hardwareInUse"  # devices of the same hardware are in use, and its counters say so
    TAINT = "tainted"
    POOL = "pool"  # the scheduler uses no device of the pool
    POLICY = "policy"  # no request fits its policy


@dataclass(frozen=True, slots=True)
class Blocked:
    """``detail`` is a sentence's end; ``claims`` have what is missing."""

    why: Why
    detail: str = ""
    claims: tuple[ClaimKey, ...] = ()
    taint: Taint | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """One result of an allocation. ``id`` is empty for a device that is given as a whole. ``fence``: what the claim's
    status says of it, if anything."""

    id: str
    device: str
    consumes: Mapping[str, Quantity] = field(hash=False)
    fence: ShareFence | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """A claim, the pods that may use it, and all that it has of one row's devices."""

    claim: ClaimKey
    pods: tuple[HolderPod, ...]
    shares: tuple[Share, ...]

    @property
    def consumes(self) -> Mapping[str, Quantity]:
        total: dict[str, Quantity] = {}
        for share in self.shares:
            for name, amount in share.consumes.items():
                total[name] = total.get(name, _NONE) + amount
        return total


@dataclass(frozen=True, slots=True)
class Use:
    """One capacity. ``largest``: what one more request could have of it; None when it could have nothing, and for what
    has no request policy, of which a share takes all."""

    name: str
    value: Quantity
    held: Quantity
    largest: Quantity | None

    @property
    def free(self) -> Quantity:
        return max(self.value - self.held, _NONE)


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """One row: a device, or all the replica devices of one. ``devices`` are the names that claims have.

    A device that is given as a whole counts as one of ``shares``, and so does each replica. ``fence`` is the published
    one, of its fractions.
    """

    node: str
    name: str
    devices: tuple[str, ...]
    uuid: str
    gpu_uuid: str
    product: str
    shared_by: str
    fence: Fence | None
    uses: tuple[Use, ...]
    holders: tuple[Holder, ...]
    taints: tuple[Taint, ...]
    blocked: Blocked | None

    @property
    def is_exclusive(self) -> bool:
        return self.shared_by == EXCLUSIVE

    @property
    def is_mig(self) -> bool:
        return isinstance(read_name(self.name), MigName)

    def use(self, name: str) -> Use | None:
        return next((use for use in self.uses if use.name == name), None)


@dataclass(frozen=True, slots=True)
class NodeUse:
    """``notes`` are about what no row shows."""

    name: str
    devices: tuple[DeviceUse, ...]
    notes: tuple[str, ...] = ()
