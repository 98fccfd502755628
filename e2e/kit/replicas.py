"""Devices in shares: the device plugin's ConfigMap for as long as a test wants it, and what is offered by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dra_driver.devices.shares import SHARES
from dra_driver.kube.interface import (
    CONFIG_MAPS,
    NAMESPACES,
    NODE_INVENTORIES,
    AlreadyExists,
    KubeApi,
    NotFound,
    Obj,
)
from e2e.kit.expected import DRIVER
from e2e.kit.pools import driver_slices
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually

NAMESPACE, NAME = "gpu-operator", "time-slicing-config"  # where the driver looks unless it is told otherwise
CHANGE_SECONDS = 10.0
# As NVIDIA's documentation and most guides have it.
FOUR_TIME_SLICES = """\
version: v1
sharing:
  timeSlicing:
    renameByDefault: false
    resources:
    - name: nvidia.com/gpu
      replicas: 4  # Each physical GPU appears as 4 resources
"""


@dataclass(frozen=True, slots=True)
class Offered:
    """A whole GPU as it is published: ``shares`` 1 for one that is not shared. ``device_type``: attribute ``type``."""

    pool: str
    device: str
    shares: int
    device_type: str
    tainted: bool


def offered(api: KubeApi, node: str = "") -> list[Offered]:
    """The devices of whole GPUs. Where the server has no consumable capacity each share is one of its own."""
    found = (
        _offered(resource_slice["spec"]["pool"]["name"], device)
        for resource_slice in driver_slices(api, node)
        for device in resource_slice["spec"].get("devices") or ()
    )
    return [each for each in found if each.device_type.startswith("gpu")]


def shares_of(devices: list[Offered]) -> dict[tuple[str, str], int]:
    """Shares by GPU (pool and the name of its device), whichever way they are published."""
    counts: dict[tuple[str, str], int] = {}
    for each in devices:
        gpu = (each.pool, each.device.partition("-replica-")[0])
        counts[gpu] = counts.get(gpu, 0) + each.shares
    return counts


def ensure_namespace(api: KubeApi) -> None:
    """The GPU Operator's, which stays: one that is going away takes no ConfigMap for a while."""
    with contextlib.suppress(AlreadyExists):
        api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})


@contextlib.contextmanager
def plugin_config(stage: Stage, data: Mapping[str, str]) -> Iterator[PluginConfig]:
    """The ConfigMap, until the end of the context, when all GPUs are offered as a whole again."""
    ensure_namespace(stage.api)
    config = PluginConfig(stage)
    stage.api.create(CONFIG_MAPS, {"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": dict(data)})
    try:
        yield config
    finally:
        with contextlib.suppress(NotFound):
            stage.api.delete(CONFIG_MAPS, NAME, NAMESPACE)
        wait_whole(stage.api)


@dataclass(frozen=True, slots=True)
class PluginConfig:
    stage: Stage

    def change(self, data: Mapping[str, str | None]) -> None:
        """None removes a key."""
        self.stage.api.patch(CONFIG_MAPS, NAME, {"data": dict(data)}, NAMESPACE)


def wait_shares(api: KubeApi, count: int, *, node: str = "", timeout: float = CHANGE_SECONDS) -> None:
    """Until every GPU is offered in so many shares."""

    def look() -> None:
        wrong = {f"{pool}/{gpu}": shares for (pool, gpu), shares in shares_of(offered(api, node)).items()}
        wrong = {gpu: shares for gpu, shares in wrong.items() if shares != count}
        if wrong:
            raise NotYet(f"{count} shares of each GPU are wanted, there are: {wrong}; {_conditions(api)}")

    eventually(look, timeout)


def wait_whole(api: KubeApi, timeout: float = 30.0) -> None:
    wait_shares(api, 1, timeout=timeout)


def sharing_condition(api: KubeApi, node: str) -> Obj | None:
    """What the NodeInventory says was made of the configuration."""
    conditions = (api.get(NODE_INVENTORIES, node).get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "SharingConfigured"), None)


def _conditions(api: KubeApi) -> str:
    names = [inventory["metadata"]["name"] for inventory in api.list(NODE_INVENTORIES).items]
    found = {name: sharing_condition(api, name) for name in names}
    return "; ".join(f"{name} says {each['message'] if each else 'nothing'}" for name, each in found.items())


def _offered(pool: str, device: Obj) -> Offered:
    capacity, attributes = device.get("capacity") or {}, device.get("attributes") or {}
    shares = int(capacity[SHARES]["value"]) if SHARES in capacity else 1
    device_type = str((attributes.get("type") or attributes.get(f"{DRIVER}/type") or {}).get("string"))
    return Offered(pool, device["name"], shares, device_type, bool(device.get("taints")))
