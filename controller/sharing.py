"""Which sharing is in force on a node: decided by ConfigMap and label, kept in the NodeInventory.

It is written to ``spec.sharing`` before slices are published by it. So the plugin knows it, and a configuration that is
broken, or cannot be read, changes nothing, also when the controller restarts meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from api.node_inventory import NodeInventorySpec, NodeSharing
from api.strict import DecodeError
from controller.inputs import Inputs
from controller.node_state import NodeState
from controller.plugin_config import PluginConfigSeen
from controller.pool import offer
from controller.problem import some_of
from dra_driver.devices.plugin_sharing import NODE_LABEL, read_config_map, rules_of
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.shares import any_shared
from dra_driver.kube.interface import NODE_INVENTORIES, KubeApi, NotFound, Obj

logger = logging.getLogger(__name__)

BROKEN = "SharingConfigurationBroken"
UNREADABLE = "SharingConfigurationUnreadable"
REFUSED = "SharingConfigurationRefused"


@dataclass(frozen=True, slots=True)
class NodeConfigured:
    """``in_force``: of the device plugin's configuration. ``unused``: reason and sentence, where that is not what the
    ConfigMap says. ``dropped``: what it asks for and nobody does. ``nothing``: why it asks for nothing on this node, a
    sentence; ``exists``: there is one. ``known``: the API server has told of it.
    """

    in_force: NodeSharing | None
    unused: tuple[str, str] | None = None
    dropped: tuple[str, ...] = ()
    nothing: str = ""
    exists: bool = True
    known: bool = True


def decided(
    seen: PluginConfigSeen | None, stored: NodeSharing | None, node: Obj, inventory: Obj, policy: DevicePolicy
) -> NodeConfigured:
    """What is in force by ``seen`` on ``node``; ``stored`` is what its ``inventory`` says was before. Pure.

    A configuration of which the node's devices can have nothing at all is as one that is broken.
    """
    found = configured(seen, sharing_label(node), stored)
    if found.in_force is None or found.in_force == stored:
        return found
    offered = offer(inventory, policy.sharing_also(rules_of(found.in_force)))
    if offered.device_set is None or not offered.not_shared or any_shared(offered.device_set):
        return found
    return NodeConfigured(stored, (REFUSED, f"{found.in_force.source}: {'. '.join(offered.not_shared)}"))


def configured(seen: PluginConfigSeen | None, label: str, stored: NodeSharing | None) -> NodeConfigured:
    """What ``seen`` asks for on a node with ``label``; ``stored`` is what was in force before. Pure."""
    if seen is None:
        return NodeConfigured(stored, known=False)
    if seen.forbidden:
        because = (
            f"ConfigMap {seen.where} cannot be read: {seen.forbidden}; let the controller list and watch it, or set "
            "spec.sharing.devicePluginConfig.name to nothing"
        )
        return NodeConfigured(stored, (UNREADABLE, because))
    if seen.data is None:
        return NodeConfigured(None, nothing=f"there is no ConfigMap {seen.where}", exists=False)
    try:
        found = read_config_map(seen.data, label)
    except DecodeError as error:
        return NodeConfigured(stored, (BROKEN, f"ConfigMap {seen.where}, {error}"))
    if not found.resources:
        return NodeConfigured(None, dropped=found.dropped, nothing=_nothing(seen.where, seen.data, found.key))
    return NodeConfigured(
        NodeSharing(source=f"{seen.where}, key {found.key}", resources=list(found.resources)), dropped=found.dropped
    )


def _nothing(where: str, keys: Iterable[str], chosen: str) -> str:
    names = sorted(keys)
    if chosen:
        return f"ConfigMap {where}, key {chosen} asks for no sharing"
    if not names:
        return f"ConfigMap {where} is empty"
    return (
        f"ConfigMap {where} has the keys {some_of(names)}, and nothing says which of them is for this node: set its "
        f"label {NODE_LABEL}, or call one default"
    )


def sharing_label(node: Obj) -> str:
    return str((node["metadata"].get("labels") or {}).get(NODE_LABEL) or "")


def stored_sharing(inventory: Obj) -> NodeSharing | None:
    """What the NodeInventory says is in force."""
    try:
        return NodeInventorySpec.model_validate(inventory.get("spec") or {}).sharing
    except ValidationError as error:
        # Another version's; it is written anew from the ConfigMap.
        logger.warning("spec.sharing of NodeInventory %s cannot be read: %s", inventory["metadata"]["name"], error)
        return None


class SharingKeeper:
    """Used by all workers; stateless but for its collaborators."""

    def __init__(self, api: KubeApi, inputs: Inputs, policy: DevicePolicy) -> None:
        self._api = api
        self._inputs = inputs
        self._policy = policy

    def keep(self, state: NodeState, inventory: Obj, node: Obj) -> tuple[NodeConfigured, Obj]:
        """What is in force on the node, and its NodeInventory, in which that is written now. Raises ApiError."""
        newest = state.newest(inventory)
        stored = stored_sharing(newest)
        found = decided(self._inputs.plugin_config(), stored, node, newest, self._policy)
        if found.in_force == stored:
            return found, newest
        wire = found.in_force.to_wire() if found.in_force else None
        name = inventory["metadata"]["name"]
        try:
            state.inventory = self._api.patch(NODE_INVENTORIES, name, {"spec": {"sharing": wire}})
        except NotFound:
            logger.info("the inventory is gone, sharing is not written", extra={"node": name})
            return found, newest
        logger.info("sharing by %s", found.in_force.source if found.in_force else "nothing", extra={"node": name})
        return found, state.inventory
