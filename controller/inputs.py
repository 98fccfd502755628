"""What the controller watches: NodeInventories, Nodes, the driver's ResourceSlices, the claims that hold its devices,
and the device plugin's configuration, which nothing waits for.

Objects are cut down to what is read (of Nodes and claims very little) or packed, so that thousands stay small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from controller.packed import pack, unpack
from controller.plugin_config import ObjectName, PluginConfigSeen, PluginConfigSource
from dra_driver.allocator.parse import holdings
from dra_driver.devices.plugin_sharing import NODE_LABEL
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, RESOURCE_CLAIMS, RESOURCE_SLICES, KubeApi, Obj
from dra_driver.kube.reflector import Reflector
from dra_driver.slices.decode import pool_of

_POOL = "pool"
_SLICES_AT_ONCE = 100  # of a list, before they are packed: a slice may be 200 KiB


@dataclass(frozen=True, slots=True)
class InputListeners:
    """Called on the reflectors' threads, with a pool's (and so a node's) name. Slices are packed: of them only the pool
    can be read."""

    changed: Callable[[str], None]
    slice_changed: Callable[[str, Obj | None, Obj | None], None]


class Inputs:
    """The local copies, between start and stop. Objects handed out are shared: never change them."""

    def __init__(
        self, api: KubeApi, driver: str, listeners: InputListeners, plugin_config: ObjectName | None = None
    ) -> None:
        """``plugin_config``: the ConfigMap; None for none."""
        self._driver = driver
        self._listeners = listeners
        self._inventories = Reflector(api, NODE_INVENTORIES, self._on_named, transform=_packed_inventory)
        self._nodes = Reflector(api, NODES, self._on_node, transform=trim_node)
        self._slices = Reflector(
            api,
            RESOURCE_SLICES,
            self._on_slice,
            field_selector=f"spec.driver={driver}",
            transform=_packed_slice,
            page_size=_SLICES_AT_ONCE,
            indexes={_POOL: lambda obj: [pool_of(obj)]},
        )
        self._claims = Reflector(
            api,
            RESOURCE_CLAIMS,
            self._on_claim,
            transform=self._trim_claim,
            indexes={_POOL: lambda obj: {result["pool"] for result in held(obj)}},
        )
        self._plugin_config = (
            None if plugin_config is None else PluginConfigSource(api, plugin_config, self._all_changed)
        )
        self._needed = (self._inventories, self._nodes, self._slices, self._claims)
        self.reflectors = (*self._needed, *([self._plugin_config.reflector] if self._plugin_config else []))

    def start(self) -> None:
        for reflector in self.reflectors:
            reflector.start()

    def stop(self) -> None:
        for reflector in self.reflectors:
            reflector.stop()

    def wait_for_sync(self, timeout: float | None = None) -> bool:
        give_up = None if timeout is None else time.monotonic() + timeout
        return all(
            reflector.wait_for_sync(None if give_up is None else max(0.0, give_up - time.monotonic()))
            for reflector in self._needed
        )

    def not_synced(self) -> list[str]:
        return [reflector.name for reflector in self._needed if not reflector.has_synced.is_set()]

    def inventory(self, name: str) -> Obj | None:
        found = self._inventories.store.get(name)
        return None if found is None else unpack(found)

    def node(self, name: str) -> Obj | None:
        return self._nodes.store.get(name)

    def slices(self, pool: str) -> list[Obj]:
        return [unpack(found) for found in self._slices.store.by_index(_POOL, pool)]

    def in_use(self, pool: str) -> frozenset[str]:
        """Names of the pool's devices that allocated claims hold."""
        return in_use(self._claims.store.by_index(_POOL, pool), pool)

    def by_shares(self, pool: str) -> frozenset[str]:
        """Those of them that claims hold by shares only."""
        return by_shares(self._claims.store.by_index(_POOL, pool), pool)

    def plugin_config(self) -> PluginConfigSeen | None:
        """The device plugin's configurations; None while nothing is known of them."""
        return self._plugin_config.seen() if self._plugin_config else PluginConfigSeen("")

    def wait_for_plugin_config(self, timeout: float) -> bool:
        """Wait until something is known of it."""
        return self._plugin_config is None or self._plugin_config.wait_for_answer(timeout)

    def pools(self) -> list[str]:
        """Names of all pools that there is anything to say about."""
        names = {obj["metadata"]["name"] for obj in self._inventories.store.objects()}
        return sorted(names.union(self._slices.store.index_values(_POOL)))

    def inventory_count(self) -> int:
        return len(self._inventories)

    def _on_named(self, old: Obj | None, new: Obj | None) -> None:
        self._listeners.changed((new or old or {})["metadata"]["name"])

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        # A node is written every few minutes by its kubelet; only what was kept of it matters here.
        if old is None or new is None or _without_version(old) != _without_version(new):
            self._on_named(old, new)

    def _on_slice(self, old: Obj | None, new: Obj | None) -> None:
        self._listeners.slice_changed(pool_of(new or old or {}), old, new)

    def _on_claim(self, old: Obj | None, new: Obj | None) -> None:
        before, after = list(held(old)), list(held(new))
        if before != after:
            for pool in {result["pool"] for result in (*before, *after)}:
                self._listeners.changed(pool)

    def _all_changed(self) -> None:
        for name in self.pools():
            self._listeners.changed(name)

    def _trim_claim(self, claim: Obj) -> Obj:
        return trim_claim(claim, self._driver)


def without_managed_fields(obj: Obj) -> Obj:
    """``obj`` less the bookkeeping of server-side apply, which may be as large as the rest; changes it."""
    obj["metadata"].pop("managedFields", None)
    return obj


def _packed_inventory(inventory: Obj) -> Obj:
    return pack(without_managed_fields(inventory), {})


def _packed_slice(resource_slice: Obj) -> Obj:
    """What the watch is asked for: the pool and its generation."""
    pool = (resource_slice.get("spec") or {}).get("pool") or {}
    return pack(without_managed_fields(resource_slice), {"spec": {"pool": pool}})


def trim_node(node: Obj) -> Obj:
    """A Node's identity, and the label that chooses its configuration of the device plugin."""
    metadata = node["metadata"]
    trimmed = {key: metadata[key] for key in ("name", "uid", "resourceVersion") if key in metadata}
    labels = metadata.get("labels") or {}
    if NODE_LABEL in labels:
        trimmed["labels"] = {NODE_LABEL: labels[NODE_LABEL]}
    return {"metadata": trimmed}


def _without_version(trimmed_node: Obj) -> Obj:
    return {key: value for key, value in trimmed_node["metadata"].items() if key != "resourceVersion"}


def trim_claim(claim: Obj, driver: str) -> Obj:
    """A claim's identity and which devices of ``driver`` it holds."""
    metadata = claim["metadata"]
    return {
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata},
        "held": [
            {"pool": device.pool, "device": device.device, "share": holding.consumed is not None}
            for device, holding in holdings(claim)
            if device.driver == driver
        ],
    }


def held(trimmed_claim: Obj | None) -> Iterator[Obj]:
    """The devices of a claim that :func:`trim_claim` made: ``pool``, ``device``, and whether it is a ``share``."""
    yield from (trimmed_claim or {}).get("held", [])


def in_use(trimmed_claims: Iterable[Obj], pool: str) -> frozenset[str]:
    """Names of the devices of ``pool`` that these claims hold."""
    return frozenset(result["device"] for claim in trimmed_claims for result in held(claim) if result["pool"] == pool)


def by_shares(trimmed_claims: Iterable[Obj], pool: str) -> frozenset[str]:
    """Names of the devices of ``pool`` that these claims hold by shares only."""
    results = [result for claim in trimmed_claims for result in held(claim) if result["pool"] == pool]
    wholly = {result["device"] for result in results if not result["share"]}
    return frozenset(result["device"] for result in results if result["device"] not in wholly)
