"""A Node without a machine behind it, and the words of a plugin on it: for what the controller does about nodes.

The Node has a taint that keeps everything off it. Its NodeInventory is a copy of a real node's, and ``answer`` does
what a plugin does whose kubelet connection is alive.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

from dra_driver.kube.interface import NODE_INVENTORIES, NODES, KubeApi, NotFound, Obj
from e2e.kit.pools import wait_published
from e2e.kit.waiting import NotYet, eventually

_TAINT = {"key": "e2e.gpu-dra.dev/no-machine", "effect": "NoSchedule"}
_CHALLENGE_SECONDS = _PUBLISH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class GhostNode:
    api: KubeApi
    name: str

    def create(self, like: str) -> None:
        """``like``: the real node whose inventory it shows."""
        status = copied_status(self.api.get(NODE_INVENTORIES, like)["status"], self.name)
        create_node(self.api, {"metadata": {"name": self.name}, "spec": {"taints": [_TAINT]}}, status)

    def give_room(self) -> None:
        """So that the scheduler binds pods that tolerate its taint. Nobody runs them."""
        room = {"cpu": "1000", "memory": "1Ti", "pods": "1000"}
        self.api.patch(NODES, self.name, {"status": {"capacity": room, "allocatable": room}}, subresource="status")

    def publish(self) -> None:
        """Answer the controller, and wait for the slices. Raises TimedOut."""
        self.answer(self.challenge())
        wait_published(self.api, [self.name], _PUBLISH_SECONDS)

    def challenge(self) -> str:
        """What the controller asks; it asks when slices are missing. Raises TimedOut."""

        def look() -> str:
            inventory = self.api.get(NODE_INVENTORIES, self.name)
            asked = (inventory.get("spec") or {}).get("challenge")
            if not asked or asked == (inventory.get("status") or {}).get("answer"):
                raise NotYet(f"the controller has not asked {self.name} for a proof")
            return str(asked)

        return eventually(look, _CHALLENGE_SECONDS)

    def answer(self, challenge: str) -> None:
        write_status(self.api, self.name, {"answer": challenge})

    def delete(self) -> None:
        with contextlib.suppress(NotFound):
            self.api.delete(NODES, self.name)


@contextlib.contextmanager
def ghost_node(api: KubeApi, name: str, like: str) -> Iterator[GhostNode]:
    ghost = GhostNode(api, name)
    try:
        ghost.create(like)
        yield ghost
    finally:
        ghost.delete()


def create_node(api: KubeApi, node: Obj, status: Obj) -> None:
    """A Node, and its NodeInventory with ``status``."""
    name = node["metadata"]["name"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": api.create(NODES, node)["metadata"]["uid"]}
    api.create(NODE_INVENTORIES, {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {}})
    write_status(api, name, status)


def write_status(api: KubeApi, name: str, status: Obj) -> None:
    """What of its NodeInventory's status is another now."""
    api.patch(NODE_INVENTORIES, name, {"status": status}, subresource="status")


def copied_status(status: Obj, name: str) -> Obj:
    """Another node's status with UUIDs of its own, and no answer yet."""
    found = copy.deepcopy(status)
    found.pop("answer", None)
    for gpu in (found.get("machine") or {}).get("gpus") or ():
        gpu["uuid"] = f"GPU-{uuid5(NAMESPACE_OID, gpu['uuid'] + name)}"  # as long as any, so that it is published whole
    return found
