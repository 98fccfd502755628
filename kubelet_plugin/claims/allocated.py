"""The claim as the API server has it, checked and cut down to what this node has to prepare.

The kubelet names a claim only by namespace, name and UID (dra.v1.Claim), so each one is read from the API server. The
checks and their meaning are those of KEP-4381: the same UID, an allocation, and results of this driver in this node's
pool; results of other drivers and of other nodes' pools are other plugins' work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dra_driver.devices.naming import is_replica
from dra_driver.errors import ClaimError, ClaimNotAllocated, ClaimNotFound, ClaimReplaced, NoDevicesForDriver
from dra_driver.kube.interface import RESOURCE_CLAIMS, ApiError, Forbidden, NotFound, Obj, Resource
from dra_driver.quantity import Quantity
from kubelet_plugin.claims.model import ClaimRef, DeviceKey


class ClaimReadError(ClaimError):
    """The API server could not be asked for the claim, or did not let us see it."""

    reason = "ClaimUnreadable"


class ClaimReader(Protocol):
    """What is needed of the Kubernetes API (``dra_driver.kube.interface.KubeApi`` has it)."""

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj: ...


class ConfigSource(StrEnum):
    """Who wrote a configuration (DeviceAllocationConfiguration.source)."""

    CLASS = "FromClass"
    CLAIM = "FromClaim"


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One result of the allocation (DeviceRequestAllocationResult)."""

    request: str  # "gpu", or "gpu/large" for a subrequest of a prioritised list
    pool: str
    device: str
    share_id: str | None = None  # set when the device is shared by capacity
    admin_access: bool = False
    consumed: Mapping[str, Quantity] = field(default_factory=dict, hash=False)  # of a share, by capacity

    @property
    def is_share(self) -> bool:
        """Whether others may have shares of the same hardware: by capacity, or as devices that stand for it."""
        return self.share_id is not None or is_replica(self.device)

    @property
    def parent_request(self) -> str:
        return self.request.partition("/")[0]


@dataclass(frozen=True, slots=True)
class OpaqueConfig:
    """One configuration for this driver. ``index`` is its place in the allocation; no ``requests`` means all.

    ``requests`` of the claim's own are those that it names, though the scheduler leaves them out of the allocation
    where they are all the requests of the claim.
    """

    index: int
    source: ConfigSource
    requests: tuple[str, ...]
    parameters: object = field(hash=False)


@dataclass(frozen=True, slots=True)
class AllocatedClaim:
    """A claim's devices on this node and the configurations that may apply to them, both in allocation order."""

    ref: ClaimRef
    devices: tuple[AllocatedDevice, ...]
    configs: tuple[OpaqueConfig, ...] = ()

    @property
    def device_keys(self) -> frozenset[DeviceKey]:
        return frozenset((device.device, device.share_id) for device in self.devices)


def read_claim(reader: ClaimReader, ref: ClaimRef, driver_name: str, pool: str) -> AllocatedClaim:
    """Read and check one claim. Raises the :class:`ClaimError` that says what is not as it has to be."""
    try:
        claim = reader.get(RESOURCE_CLAIMS, ref.name, ref.namespace)
    except NotFound:
        raise ClaimNotFound(
            f"ResourceClaim {ref.namespace}/{ref.name} (UID {ref.uid}) does not exist",
            hint="it was deleted while the pod started; the pod has to be created again with its claim",
        ) from None
    except Forbidden as error:
        raise ClaimReadError(
            f"not allowed to read ResourceClaim {ref.namespace}/{ref.name}: {error.message}",
            hint="the plugin's service account needs 'get' on resourceclaims.resource.k8s.io",
        ) from error
    except ApiError as error:
        raise ClaimReadError(
            f"cannot read ResourceClaim {ref.namespace}/{ref.name}: {error.message}",
            hint="the kubelet tries again by itself; if it stays, check the API server and the node's network",
        ) from error
    return check_claim(claim, ref, driver_name, pool)


def check_claim(claim: Obj, ref: ClaimRef, driver_name: str, pool: str) -> AllocatedClaim:
    """Check one claim that was read. Pure."""
    found_uid = claim.get("metadata", {}).get("uid")
    if found_uid != ref.uid:
        raise ClaimReplaced(
            f"ResourceClaim {ref.namespace}/{ref.name} has UID {found_uid}, but the pod was given UID {ref.uid}: "
            "it was deleted and made again",
            hint="the pod has to be created again to use the new claim",
        )
    allocation = (claim.get("status") or {}).get("allocation")
    if not allocation:
        raise ClaimNotAllocated(
            f"ResourceClaim {ref.namespace}/{ref.name} is not allocated",
            hint="the scheduler has not given it devices, or took them back; the kubelet tries again",
        )
    allocated = allocation.get("devices") or {}
    results = allocated.get("results") or []
    devices = tuple(
        _device(result) for result in results if result.get("driver") == driver_name and result.get("pool") == pool
    )
    if not devices:
        raise NoDevicesForDriver(
            f"the allocation of ResourceClaim {ref.namespace}/{ref.name} has no device of driver {driver_name} in pool "
            f"{pool}; it has {_summary(results)}",
            hint="the claim was allocated for another driver or node; another plugin has to prepare it",
        )
    entries = _with_their_requests(allocated.get("config") or [], claim, {str(each.get("request")) for each in results})
    return AllocatedClaim(ref, devices, tuple(_configs(entries, driver_name)))


def _device(result: Mapping[str, object]) -> AllocatedDevice:
    share_id = result.get("shareID")
    return AllocatedDevice(
        request=str(result.get("request", "")),
        pool=str(result.get("pool", "")),
        device=str(result.get("device", "")),
        share_id=str(share_id) if share_id else None,
        admin_access=result.get("adminAccess") is True,
        consumed=_quantities(result.get("consumedCapacity")) if share_id else {},
    )


def _quantities(consumed: object) -> Mapping[str, Quantity]:
    """As the API server has stored them."""
    return {str(name): Quantity.parse(value) for name, value in consumed.items()} if isinstance(consumed, dict) else {}


def _with_their_requests(entries: Sequence[Obj], claim: Obj, chosen: Collection[str]) -> list[Obj]:
    """The configurations of an allocation; the claim's with the requests that they name.

    kube-scheduler writes one that names every request of the claim without any (structured/internal, "clear its
    Requests field"), so whether it was meant for those requests or for whatever it fits stands in the claim's spec
    alone. That never changes; its entries are in the allocation in their order, but for those that name only
    alternatives which were not chosen. An allocation that is not such a copy is taken as it is.
    """
    spec = (claim.get("spec") or {}).get("devices") or {}
    asked = [entry for entry in spec.get("config") or [] if _is_for(entry, chosen)]
    of_claim = [entry for entry in entries if entry.get("source") != ConfigSource.CLASS]
    if [entry.get("opaque") for entry in of_claim] != [entry.get("opaque") for entry in asked]:
        return list(entries)
    names = iter([entry.get("requests") for entry in asked])
    return [
        entry if entry.get("source") == ConfigSource.CLASS else {**entry, "requests": next(names)} for entry in entries
    ]


def _is_for(entry: Obj, chosen: Collection[str]) -> bool:
    names = entry.get("requests") or []
    return not names or any(each in names or each.partition("/")[0] in names for each in chosen)


def _configs(entries: Sequence[Mapping[str, object]], driver_name: str) -> list[OpaqueConfig]:
    configs: list[OpaqueConfig] = []
    for index, entry in enumerate(entries):
        opaque = entry.get("opaque")
        if not isinstance(opaque, Mapping) or opaque.get("driver") != driver_name:
            continue  # for another driver; opaque is the only form there is (resource.k8s.io/v1 DeviceConfiguration)
        requests = entry.get("requests")
        configs.append(
            OpaqueConfig(
                index=index,
                source=ConfigSource.CLASS if entry.get("source") == ConfigSource.CLASS else ConfigSource.CLAIM,
                requests=tuple(map(str, requests)) if isinstance(requests, list) else (),
                parameters=opaque.get("parameters"),
            )
        )
    return configs


def _summary(results: Sequence[Mapping[str, object]]) -> str:
    names = [f"{result.get('driver')}/{result.get('pool')}/{result.get('device')}" for result in results[:4]]
    if len(results) > len(names):
        names.append(f"{len(results) - len(names)} more")
    return ", ".join(names) or "no devices at all"
