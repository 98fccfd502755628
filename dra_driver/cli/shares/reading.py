"""What ``gpu-dra shares`` asks a cluster, and the answer as values: pools of devices, claims and their pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dra_driver.allocator.allocate import devices_in_use
from dra_driver.allocator.model import ClaimKey, InUse
from dra_driver.allocator.parse import claim_key
from dra_driver.allocator.pools import Pool, pools_from_slices
from dra_driver.cli.shares.fences import ShareFence, ShareKey, share_fences
from dra_driver.errors import DriverError
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, KubeApi, Obj
from dra_driver.kube.lists import list_all
from dra_driver.slices.decode import driver_of, pool_of

ASKED = (RESOURCE_SLICES, RESOURCE_CLAIMS, PODS)


@dataclass(frozen=True, slots=True)
class HolderPod:
    """A pod that may use a claim."""

    name: str
    phase: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One look at a cluster. ``nodes``: those that are asked about; a pool is named after its node. ``pods`` are those
    that exist, by claim; ``fences`` what the claims say of their shares."""

    driver: str
    nodes: tuple[str, ...]
    pools: Mapping[str, Pool] = field(hash=False)
    in_use: InUse = field(hash=False)
    pods: Mapping[ClaimKey, tuple[HolderPod, ...]] = field(hash=False)
    fences: Mapping[ShareKey, ShareFence] = field(hash=False)


def read_cluster(api: KubeApi, driver: str, node: str | None) -> ClusterView:
    """Raises ApiError, and what :func:`view` raises."""
    slices, claims, pods = (list_all(api, resource) for resource in ASKED)
    return view(driver, slices, claims, pods, node=node)


def view(
    driver: str, slices: Iterable[Obj], claims: Iterable[Obj], pods: Iterable[Obj], *, node: str | None = None
) -> ClusterView:
    """The view of ``node``, or of all. Raises DriverError when no node, or not this one, has a device of ``driver``."""
    everything, claims = list(slices), list(claims)
    own = [entry for entry in everything if driver_of(entry) == driver and pool_of(entry)]
    pools = {pool.name: pool for pool in pools_from_slices(own)}
    in_use = {device: held for device, held in devices_in_use(claims).items() if device.driver == driver}
    names = sorted({*pools, *(device.pool for device in in_use)})
    if not names:
        raise DriverError(f"no ResourceSlice is of driver {driver}", hint=_which_drivers(everything))
    if node is not None and node not in names:
        raise DriverError(f"node {node} has no device of driver {driver}", hint=f"these have some: {', '.join(names)}")
    asked = tuple(names) if node is None else (node,)
    return ClusterView(driver, asked, pools, in_use, _pods_of(claims, pods), share_fences(claims, driver))


def _which_drivers(slices: Iterable[Obj]) -> str:
    others = sorted({driver_of(entry) for entry in slices} - {""})
    if others:
        return f"there are slices of {', '.join(others)}: --driver-name says which driver is meant"
    return "the driver's controller writes them; does it run, and a kubelet plugin on each node?"


def _pods_of(claims: Iterable[Obj], pods: Iterable[Obj]) -> dict[ClaimKey, tuple[HolderPod, ...]]:
    """By the name and UID in ``reservedFor``: a pod that has gone holds nothing, nor does another one of its name."""
    there = {
        (pod["metadata"].get("namespace"), pod["metadata"]["name"], pod["metadata"].get("uid")): pod for pod in pods
    }
    found = {}
    for claim in claims:
        key = claim_key(claim)
        reserved = (claim.get("status") or {}).get("reservedFor") or ()
        named = (each for each in reserved if each.get("resource") == "pods")
        mine = (there.get((key.namespace, each["name"], each.get("uid"))) for each in named)
        found[key] = tuple(HolderPod(pod["metadata"]["name"], _phase(pod)) for pod in mine if pod is not None)
    return found


def _phase(pod: Obj) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")
