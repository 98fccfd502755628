"""A cluster for tests of sharing: a world with the device plugin's ConfigMap, and what they look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from api.claim_config import SharingStrategy
from controller.app import Controller
from controller.plugin_config import ObjectName
from dra_driver.kube.interface import (
    CONFIG_MAPS,
    NAMESPACES,
    NODE_INVENTORIES,
    NODES,
    RESOURCE_SLICES,
    Obj,
)
from tests.controller.world import World

NAME = ObjectName("gpu-operator", "time-slicing-config")
LABEL = "nvidia.com/device-plugin.config"
# The ConfigMap that tutorials have.
FOUR = """version: v1
sharing:
  timeSlicing:
    renameByDefault: false
    resources:
    - name: nvidia.com/gpu
      replicas: 4  # Each physical GPU appears as 4 resources
"""
TWO = FOUR.replace("replicas: 4", "replicas: 2")
MPS = FOUR.replace("timeSlicing", "mps")
BROKEN = FOUR.replace("replicas: 4", "replicas: 1")
TAINT = "gpu.nvidia.com/unavailable"
TIME_SLICING = SharingStrategy.TIME_SLICING


class Cluster:
    """A world with the ConfigMap's namespace, and what tests of sharing look at."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.api.create(NAMESPACES, {"metadata": {"name": NAME.namespace}})

    def start(self, **options: Any) -> Controller:
        return self.world.start_controller(plugin_config=NAME, **options)

    def apply(self, **data: str) -> None:
        body = {"metadata": {"name": NAME.name, "namespace": NAME.namespace}, "data": data}
        if self.world.api.list(CONFIG_MAPS, NAME.namespace).items:
            self.world.api.update(CONFIG_MAPS, body)
        else:
            self.world.api.create(CONFIG_MAPS, body)

    def remove(self) -> None:
        self.world.api.delete(CONFIG_MAPS, NAME.name, NAME.namespace)

    def label(self, node: str, value: str | None) -> None:
        self.world.api.patch(NODES, node, {"metadata": {"labels": {LABEL: value}}})

    def shares(self, node: str) -> dict[str, str]:
        """By device, of those that have some."""
        devices = (device for found in self.world.slices(node) for device in found["spec"].get("devices") or ())
        return {
            device["name"]: device["capacity"]["shares"]["value"]
            for device in devices
            if "shares" in device["capacity"]
        }

    def shared(self, node: str, count: int, replicas: int) -> None:
        wanted = Counter({str(replicas): count}) if count else Counter()
        self.world.wait(
            lambda: Counter(self.shares(node).values()) == wanted, f"{count} devices with {replicas} shares on {node}"
        )

    def in_force(self, node: str) -> Any:
        return (self.world.api.get(NODE_INVENTORIES, node).get("spec") or {}).get("sharing")

    def condition(self, node: str) -> Obj:
        conditions = self.world.api.get(NODE_INVENTORIES, node)["status"].get("conditions") or []
        return next((found for found in conditions if found["type"] == "SharingConfigured"), {})

    def told(self, node: str, reason: str) -> str:
        self.world.wait(lambda: self.condition(node).get("reason") == reason, f"condition {reason} on {node}")
        self.world.wait(lambda: self.world.events(reason), f"an Event {reason}")
        return str(self.condition(node)["message"])

    def tainted(self, node: str, device: str) -> bool:
        return any(taint["key"] == TAINT for taint in self.world.device(node, device).get("taints") or ())


class Meddled:
    """An API on which something is done before each real write of a slice."""

    def __init__(self, api: Any, *, before_slice: Callable[[Obj], None]) -> None:
        class Api:
            def __getattr__(self, name: str) -> Any:
                method = getattr(api, name)
                if name not in ("create", "update"):
                    return method

                def call(resource: Any, obj: Obj, **options: Any) -> Any:
                    if resource == RESOURCE_SLICES and not options.get("dry_run"):
                        before_slice(obj)
                    return method(resource, obj, **options)

                return call

        self.api: Any = Api()
