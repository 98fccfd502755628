"""A cluster for the controller's tests: embedded API, nodes with simulated machines, and plugins that answer or not."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from controller.app import Controller, ControllerOptions
from controller.challenge import ChallengeTimings
from dra_driver.hardware.inventory import machine_to_status
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.kube.interface import (
    EVENTS,
    NAMESPACES,
    NODE_INVENTORIES,
    NODES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ApiError,
    KubeApi,
    Obj,
)
from dra_driver.kube.reflector import Reflector
from dra_driver.simulation.store import OFF_BY_DEFAULT, EmbeddedApi

DRIVER = "gpu.nvidia.com"
FAST = ChallengeTimings(settle=0.03, jitter=0.02)


class World:
    """``features_off``: feature gates of the API server that are off beside the alpha ones."""

    def __init__(self, *, features_off: frozenset[str] = frozenset()) -> None:
        self._activity = threading.Condition()
        self.api = EmbeddedApi(disabled_features=OFF_BY_DEFAULT | features_off, audit=self._on_request)
        self._plugins: list[Plugin] = []
        self._controllers: list[Controller] = []
        self._claims = itertools.count()
        labels = {"resource.kubernetes.io/admin-access": "true"}
        self.api.create(NAMESPACES, {"metadata": {"name": "admin", "labels": labels}})

    def _on_request(self, _entry: object) -> None:
        with self._activity:
            self._activity.notify_all()

    def close(self) -> None:
        for controller in self._controllers:
            controller.stop()
        for plugin in self._plugins:
            plugin.close()

    # -- waiting ----------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], what: str = "the condition", timeout: float = 8.0) -> None:
        give_up = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < give_up, f"waited {timeout} s for {what}"
            with self._activity:
                self._activity.wait(0.02)

    def assert_quiet(self, seconds: float = 0.15, settle: float = 5.0) -> None:
        """What is under way ends soon, and then nobody writes anything for ``seconds``."""
        give_up = time.monotonic() + settle
        before = self.api.writes()
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < seconds:
            assert time.monotonic() < give_up, f"still writing: {self.api.writes()}"
            with self._activity:
                self._activity.wait(0.02)
            now = self.api.writes()
            if now != before:
                before, quiet_since = now, time.monotonic()

    def slice_writes(self) -> Counter[str]:
        return Counter(
            {verb: count for (verb, plural), count in self.api.writes().items() if plural == "resourceslices"}
        )

    # -- cluster ----------------------------------------------------------------------------------------------------

    def add_node(self, name: str, machine: Machine | None = None, *, connected: bool = True) -> Plugin:
        self.api.create(NODES, {"metadata": {"name": name}})
        plugin = Plugin(self.api, name, connected=connected)
        self._plugins.append(plugin)
        if machine is not None:
            plugin.report(machine)
        return plugin

    def add_plugin(self, name: str) -> Plugin:
        """For a node that exists."""
        plugin = Plugin(self.api, name, connected=True)
        self._plugins.append(plugin)
        return plugin

    def slices(self, node: str) -> list[Obj]:
        page = self.api.list(RESOURCE_SLICES, field_selector=f"spec.nodeName={node}")
        return sorted(page.items, key=lambda obj: str(obj["metadata"]["name"]))

    def devices(self, node: str) -> list[str]:
        return [device["name"] for found in self.slices(node) for device in found["spec"].get("devices", [])]

    def device(self, node: str, name: str) -> Obj:
        found: list[Obj] = [
            device for obj in self.slices(node) for device in obj["spec"].get("devices", []) if device["name"] == name
        ]
        assert len(found) == 1
        return found[0]

    def wipe(self, node: str) -> None:
        """What the kubelet does at its start (pkg/kubelet/cm/dra)."""
        self.api.delete_collection(RESOURCE_SLICES, field_selector=f"spec.nodeName={node}")

    def allocate(self, node: str, device: str, *, namespace: str = "default", share: bool = False) -> str:
        """A claim that holds ``device``, or a share of it; returns its name. Admin access needs the namespace
        ``admin``."""
        name = f"claim-{next(self._claims)}"
        access = {"adminAccess": True} if namespace == "admin" else {}
        request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER, **access}}
        claim = {"metadata": {"name": name, "namespace": namespace}, "spec": {"devices": {"requests": [request]}}}
        created = self.api.create(RESOURCE_CLAIMS, claim)
        held = {"request": "gpu", "driver": DRIVER, "pool": node, "device": device, **access}
        if share:
            held |= {"shareID": str(uuid.uuid4()), "consumedCapacity": {"shares": "1"}}
        created["status"] = {"allocation": {"devices": {"results": [held]}}}
        self.api.update(RESOURCE_CLAIMS, created, subresource="status")
        # Claims and inventories come by different watches; tests that need their order get it here.
        for controller in self._controllers:
            if namespace != "admin":
                self._wait_for_claim(controller, node, device)
        return name

    def _wait_for_claim(self, controller: Controller, node: str, device: str) -> None:
        self.wait(lambda: device in controller.inputs.in_use(node), "the claim to be seen")

    def wait_for_claims(self, held: Collection[tuple[str, str]]) -> None:
        """Until the controllers know that claims hold these devices, by pool and name."""
        for controller in self._controllers:
            for pool, device in held:
                self._wait_for_claim(controller, pool, device)

    def deallocate(self, claim: str) -> None:
        obj = self.api.get(RESOURCE_CLAIMS, claim, "default")
        obj["status"] = {}
        self.api.update(RESOURCE_CLAIMS, obj, subresource="status")

    def events(self, reason: str) -> list[Obj]:
        return [event for event in self.api.list(EVENTS).items if event["reason"] == reason]

    # -- controllers ------------------------------------------------------------------------------------------------

    def start_controller(self, api: KubeApi | None = None, **options: Any) -> Controller:
        options.setdefault("timings", FAST)
        controller = Controller(api or self.api, ControllerOptions(driver=DRIVER, **options))
        self._controllers.append(controller)
        controller.start()
        return controller

    def start_meddled(self, **before: list[Callable[[], None]]) -> Meddling:
        """A controller whose requests about slices are meddled with."""
        meddling = Meddling(self.api)
        meddling.before.update(before)
        self.start_controller(meddling)
        return meddling

    def stop_controller(self, controller: Controller) -> None:
        self._controllers.remove(controller)
        controller.stop()

    def settled(self, controller: Controller, pools: int = 1) -> None:
        """Until the controller has found so many pools as they should be."""

        def found() -> float:
            (metric,) = controller.metrics.pools.collect()
            return metric.samples[0].value

        self.wait(lambda: found() == pools, f"{pools} pools as they should be", 20)

    def published(self, node: str, count: int) -> None:
        self.wait(lambda: len(self.devices(node)) == count, f"{count} devices on {node}")


class Plugin:
    """The kubelet plugin as the controller sees it: an inventory, and answers while ``connected``."""

    def __init__(self, api: EmbeddedApi, node: str, *, connected: bool) -> None:
        self._api = api
        self._node = node
        self._connected = connected
        owner = api.get(NODES, node)["metadata"]
        api.create(
            NODE_INVENTORIES,
            {
                "apiVersion": NODE_INVENTORIES.api_version,
                "kind": NODE_INVENTORIES.kind,
                "metadata": {
                    "name": node,
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner["uid"]}],
                },
                "spec": {},
            },
        )
        self.challenges: list[str] = []
        self._reflector = Reflector(api, NODE_INVENTORIES, self._on_change)
        self._reflector.start()

    def close(self) -> None:
        self._reflector.stop()

    def report(self, machine: Machine) -> None:
        self.write_status({"machine": machine_to_status(machine).to_wire()})

    def report_unreadable(self, message: str) -> None:
        condition = {"type": "HardwareReady", "status": "False", "reason": "LibraryMissing", "message": message}
        self.write_status({"machine": None, "conditions": [condition]})

    def write_status(self, status: Obj) -> None:
        self._api.patch(NODE_INVENTORIES, self._node, {"status": status}, subresource="status")

    def connect(self) -> None:
        """The kubelet registered the plugin (again)."""
        self._connected = True
        try:
            self._answer(self._api.get(NODE_INVENTORIES, self._node))
        except ApiError:
            return

    def disconnect(self) -> None:
        self._connected = False

    def _on_change(self, _old: Obj | None, new: Obj | None) -> None:
        if new is not None and new["metadata"]["name"] == self._node:
            self._answer(new)

    def _answer(self, inventory: Obj) -> None:
        challenge = (inventory.get("spec") or {}).get("challenge")
        if not challenge:
            return
        if challenge not in self.challenges:
            self.challenges.append(challenge)
        if self._connected and (inventory.get("status") or {}).get("answer") != challenge:
            self.write_status({"answer": challenge})


class Meddling:
    """Passes everything on to the embedded API, after ``before[verb]`` had its say about slices (once each)."""

    def __init__(self, api: EmbeddedApi) -> None:
        self._api = api
        self.before: dict[str, list[Any]] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)
        if name not in ("create", "update", "delete"):
            return method

        def call(resource: Any, *arguments: Any, **options: Any) -> Any:
            if resource == RESOURCE_SLICES:
                self.calls.append(name)
                if self.before.get(name):
                    self.before[name].pop(0)()
            return method(resource, *arguments, **options)

        return call


def big_machine(count: int) -> Machine:
    return Machine(
        "580.105.08",
        13000,
        tuple(
            Gpu(
                index=number,
                minor=number,
                uuid=f"GPU-{number:08x}-0000-0000-0000-000000000000",
                product_name="NVIDIA T4",
                brand="Nvidia",
                architecture="Turing",
                cuda_compute_capability="7.5",
                pci_bus_id=f"0000:{number:02x}:00.0",
                memory_bytes=16 * 2**30,
            )
            for number in range(count)
        ),
    )
