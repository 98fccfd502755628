"""What ``gpu-dra mig`` asks a cluster, and the answer as values: nodes with their GPUs, slices, claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from api.node_inventory import MIG_LAYOUT_APPLIED, NodeInventory
from dra_driver.allocator.model import ClaimKey
from dra_driver.allocator.parse import claim_key, devices_held
from dra_driver.cli.mig.gpu_map import GpuMap, HeldDevice, map_gpu
from dra_driver.devices.model import AllocatableDevice
from dra_driver.devices.naming import GpuName, MigName, minor_of, read_name
from dra_driver.devices.ordering import order_gpus
from dra_driver.errors import DriverError
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.hardware.model import Gpu
from dra_driver.kube.interface import NODE_INVENTORIES, RESOURCE_CLAIMS, RESOURCE_SLICES, KubeApi, Obj
from dra_driver.kube.lists import list_all
from dra_driver.slices.decode import driver_of, pool_of, published_devices


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """One node as its plugin last saw it. ``notes`` are about the node as a whole."""

    name: str
    gpus: tuple[Gpu, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One look at a cluster. ``slices`` are those of the driver on ``nodes``, ``claims`` are all; both as the API has
    them."""

    driver: str
    nodes: tuple[NodeGpus, ...]
    slices: tuple[Obj, ...]
    claims: tuple[Obj, ...]


def read_cluster(api: KubeApi, driver: str, node: str | None) -> ClusterView:
    """Raises ApiError, and what :func:`view` raises."""
    return view(
        driver,
        list_all(api, NODE_INVENTORIES),
        list_all(api, RESOURCE_SLICES),
        list_all(api, RESOURCE_CLAIMS),
        node=node,
    )


def view(
    driver: str, inventories: Sequence[Obj], slices: Iterable[Obj], claims: Iterable[Obj], *, node: str | None = None
) -> ClusterView:
    """The view of ``node``, or of all. Raises DriverError when it has no inventory, or no node has one."""
    names = sorted(entry["metadata"]["name"] for entry in inventories)
    if not names:
        raise DriverError("no node has an inventory", hint="the driver's kubelet plugin writes it; does it run?")
    if node is not None and node not in names:
        raise DriverError(f"there is no NodeInventory {node}", hint=f"there are: {', '.join(names)}")
    nodes = [_node(entry) for entry in inventories if node in (None, entry["metadata"]["name"])]
    chosen = {entry.name for entry in nodes}
    pools = [entry for entry in slices if driver_of(entry) == driver and pool_of(entry) in chosen]
    return ClusterView(driver, tuple(sorted(nodes, key=lambda each: each.name)), tuple(pools), tuple(claims))


def _node(inventory: Obj) -> NodeGpus:
    name = inventory["metadata"]["name"]
    try:
        status = NodeInventory.model_validate(inventory).status
        gpus = order_gpus(machine_from_status(status.machine).gpus) if status.machine else ()
    except (ValidationError, ValueError) as error:
        raise DriverError(f"NodeInventory {name} cannot be read: {error}") from error
    notes = [each.message for each in status.conditions if each.type == MIG_LAYOUT_APPLIED and each.status != "True"]
    if status.machine is None:
        notes.append("the plugin has not read the hardware")
    return NodeGpus(name, gpus, tuple(notes))


def held_devices(view: ClusterView, node: str) -> list[HeldDevice]:
    """The devices of ``node`` that claims have; admin access has nothing."""
    return [HeldDevice(name, key, pods) for name, key, pods in _held(view, node)]


def _held(view: ClusterView, node: str) -> Iterator[tuple[GpuName | MigName, ClaimKey, tuple[str, ...]]]:
    for claim in view.claims:
        reserved = (claim.get("status") or {}).get("reservedFor") or ()
        pods = tuple(each["name"] for each in reserved if each.get("resource") == "pods")
        for device in devices_held(claim):
            name = read_name(device.device) if (device.driver, device.pool) == (view.driver, node) else None
            if name is not None:
                yield name, claim_key(claim), pods


def map_cluster(view: ClusterView, planned: Mapping[str, Sequence[MigName]] | None = None) -> list[GpuMap]:
    """A map of each GPU, node by node; ``planned`` devices by node."""
    maps = []
    for node in view.nodes:
        held = held_devices(view, node.name)
        published = published_devices(entry for entry in view.slices if pool_of(entry) == node.name)
        for gpu in node.gpus:
            notes = _notes(gpu, published.devices)
            maps.append(map_gpu(node.name, gpu, held, (planned or {}).get(node.name, ()), notes))
    return maps


def _notes(gpu: Gpu, published: Iterable[AllocatableDevice]) -> Iterator[str]:
    """What keeps the scheduler from the GPU although nothing is drawn there."""
    devices = [device for device in published if minor_of(device.name) == gpu.minor]
    if not devices:
        yield "none of its devices is published"
    taints = Counter(
        f"{taint.key}={taint.value}" if taint.value else taint.key
        for device in devices
        for taint in device.taints
        if taint.keeps_pods_away
    )
    for taint, count in taints.items():
        yield f"{count} of {len(devices)} devices tainted {taint}"
