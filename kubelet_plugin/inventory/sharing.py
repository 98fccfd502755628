"""How devices are shared on this node right now: the administrator's rules, then what the controller put in force.

The controller writes it into the node's NodeInventory before it publishes slices by it (``controller.sharing``). It is
kept while the API server is away. Before the object was seen for the first time nobody knows about a device that no
rule of DriverConfiguration decides: a share of it is then not prepared rather than prepared wrongly.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from api.node_inventory import NodeInventorySpec, NodeSharing
from dra_driver.devices.plugin_sharing import rules_of
from dra_driver.devices.sharing import Sharing, SharingPolicy
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Gpu

logger = logging.getLogger(__name__)


class SharingUnknown(DriverError):
    """The NodeInventory was not read yet in this process."""

    reason = "SharingUnknown"


class UnknownSharing(SharingPolicy):
    """The rules of DriverConfiguration, and ignorance beyond them."""

    __slots__ = ()

    def _first(self, node: str, gpu: Gpu, profile: str | None) -> Sharing | None:
        found = super()._first(node, gpu, profile)
        if found is None:
            raise SharingUnknown(
                f"how GPU {gpu.uuid} is shared is not known yet: NodeInventory {node} was not read",
                hint="the kubelet tries again by itself; if it stays, check the API server and the node's network",
            )
        return found


class NodeSharingInForce:
    """A ``kinds.sharing.SharingInForce``, told by the inventory writer; thread-safe."""

    def __init__(self, rules: SharingPolicy) -> None:
        """``rules`` of DriverConfiguration."""
        self._rules = rules
        self._lock = threading.Lock()
        self._seen: NodeSharing | None = None
        self._current: SharingPolicy = UnknownSharing(rules.rules)

    def current(self) -> SharingPolicy:
        """Its methods raise ``SharingUnknown`` as long as nothing is known."""
        return self._current

    def saw(self, inventory: dict[str, Any]) -> None:
        """``inventory``: this node's NodeInventory, as it is now."""
        try:
            sharing = NodeInventorySpec.model_validate(inventory.get("spec") or {}).sharing
        except ValidationError as error:
            logger.warning("spec.sharing of the NodeInventory cannot be read, what was known stays: %s", error)
            return
        with self._lock:
            known = not isinstance(self._current, UnknownSharing)
            if known and sharing == self._seen:
                return
            self._seen = sharing
            self._current = replace(self._rules, rules=(*self._rules.rules, *rules_of(sharing)))
        logger.info("sharing by %s", sharing.source if sharing else "the driver's configuration alone")
