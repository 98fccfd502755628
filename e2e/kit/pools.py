"""What the driver publishes: pools of devices, and whether they are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dra_driver.allocator.model import Device
from dra_driver.allocator.pools import Pool, pools_from_slices
from dra_driver.devices.model import DeviceKind
from dra_driver.kube.interface import NODE_INVENTORIES, RESOURCE_CLAIMS, RESOURCE_SLICES, KubeApi, Obj
from e2e.kit.expected import DRIVER, results_of
from e2e.kit.waiting import NotYet, eventually


@dataclass(frozen=True, slots=True)
class Gpu:
    """One published whole GPU."""

    pool: str
    name: str
    uuid: str
    pcie_root: str
    tainted: bool = False


def driver_slices(api: KubeApi, node: str = "") -> list[Obj]:
    """ResourceSlices of this driver, of one node or of all."""
    selector = f"spec.driver={DRIVER}" + (f",spec.nodeName={node}" if node else "")
    return api.list(RESOURCE_SLICES, field_selector=selector).items


def versions(slices: Sequence[Obj]) -> dict[str, str]:
    """UID and resourceVersion of each: the same again means that nobody wrote one."""
    return {entry["metadata"]["uid"]: entry["metadata"]["resourceVersion"] for entry in slices}


def pool_of(api: KubeApi, node: str) -> Pool | None:
    return next(iter(pools_from_slices(driver_slices(api, node))), None)


def gpus(api: KubeApi, node: str = "") -> list[Gpu]:
    """All published whole GPUs in the scheduler's order."""
    return [
        _gpu(device)
        for pool in pools_from_slices(driver_slices(api, node))
        for device in pool.devices
        if device.attribute(f"{DRIVER}/type") == DeviceKind.GPU
    ]


def profiles(api: KubeApi) -> set[str]:
    """Profiles of the published MIG devices; empty where no GPU is partitioned."""
    found = {
        device.attribute(f"{DRIVER}/profile")
        for pool in pools_from_slices(driver_slices(api))
        for device in pool.devices
    }
    return {str(profile) for profile in found if profile}


def free_gpus(api: KubeApi, node: str = "") -> list[Gpu]:
    """Those that no allocated claim holds."""
    held = {(result.pool, result.device) for claim in api.list(RESOURCE_CLAIMS).items for result in results_of(claim)}
    return [gpu for gpu in gpus(api, node) if (gpu.pool, gpu.name) not in held]


def wait_published(api: KubeApi, nodes: Sequence[str], timeout: float) -> None:
    """Until every node's pool is whole and has every GPU of its inventory. Raises TimedOut."""

    def look() -> None:
        for node in nodes:
            problem = publication_problem(api, node)
            if problem:
                raise NotYet(problem)

    eventually(look, timeout)


def publication_problem(api: KubeApi, node: str) -> str:
    """Why the devices of a node are not all there; empty when they are."""
    inventories = api.list(NODE_INVENTORIES, field_selector=f"metadata.name={node}").items
    if not inventories:
        return f"node {node} has no NodeInventory"
    machine = (inventories[0].get("status") or {}).get("machine")
    if not machine:
        return f"NodeInventory {node} has no machine: {conditions(inventories[0])}"
    pool = pool_of(api, node)
    if pool is None:
        return f"node {node} has no ResourceSlice; its inventory: {conditions(inventories[0])}"
    if pool.problem:
        return f"pool {node}: {pool.problem}"
    if len(pool.devices) < len(machine.get("gpus") or ()):
        return f"pool {node} has {len(pool.devices)} devices, its machine {len(machine['gpus'])} GPUs"
    return ""


def conditions(obj: Obj) -> str:
    """``HardwareReady=True, KubeletRegistered=False (reason: message)``."""
    found = []
    for condition in (obj.get("status") or {}).get("conditions") or ():
        text = f"{condition['type']}={condition['status']}"
        if condition["status"] != "True":
            text += f" ({condition.get('reason', '')}: {condition.get('message', '')})"
        found.append(text)
    return ", ".join(found) or "no conditions"


def _gpu(device: Device) -> Gpu:
    return Gpu(
        pool=device.id.pool,
        name=device.id.device,
        uuid=str(device.attribute(f"{DRIVER}/uuid")),
        pcie_root=str(device.attribute("resource.kubernetes.io/pcieRoot") or ""),
        tainted=bool(device.taints),
    )
