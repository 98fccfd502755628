"""What sharing asks of a demo: an MPS supervisor on each node, and pods that come when GPUs are offered in shares.

A pod that comes before gets a whole GPU, which then stays whole until it has gone; people are slower than that. What
becomes of the ConfigMap, and of rules in a DriverConfiguration, is in a condition of each NodeInventory, where people
look on a real cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

from api.claim_config import SharingStrategy
from api.driver_config import decode
from api.fractions import SharingBackend
from api.node_inventory import SHARING_CONFIGURED
from api.sharing_policy import DevicePluginConfigSettings
from dra_driver.allocator.pools import pools_from_slices
from dra_driver.cli.manifests import Manifest
from dra_driver.devices.shares import BACKEND
from dra_driver.kube.interface import CONFIG_MAPS, NODE_INVENTORIES, RESOURCE_SLICES, KubeApi, Obj
from dra_driver.kube.lists import list_all

_STRATEGY = json.dumps({"strategy": SharingStrategy.MPS}).strip("{}")
_READ = DevicePluginConfigSettings()  # what the controller reads unless it is told otherwise
_CONFIG_MAP = f"{_READ.namespace}/{_READ.name}"
_SECONDS = 10.0
_POLL_SECONDS = 0.05

Condition = tuple[str, str] | None  # status and message


def is_about_shares(manifest: Manifest) -> bool:
    """Whether it is the ConfigMap that the controller reads unless it is told otherwise."""
    return manifest.resource == CONFIG_MAPS and (manifest.namespace, manifest.name) == (_READ.namespace, _READ.name)


def asks_for_mps(manifests: Sequence[Manifest], configuration: Obj | None) -> bool:
    """Whether a node needs an MPS supervisor, as far as one can see: fractions are fenced by MPS."""
    rules = decode(configuration or {}).spec.sharing.rules
    if any(rule.fractions is not None or rule.strategy is SharingStrategy.MPS for rule in rules):
        return True
    return any(_STRATEGY in json.dumps(manifest.object) for manifest in manifests) or any(
        "mps:" in str(text)
        for manifest in manifests
        if is_about_shares(manifest)
        for text in (manifest.object.get("data") or {}).values()
    )


def shares_by_rule(configuration: Obj | None) -> bool:
    sharing = decode(configuration or {}).spec.sharing
    return bool(sharing.rules or sharing.consumable_shares)


def sharing_conditions(api: KubeApi) -> dict[str, Condition]:
    """What each node's NodeInventory says about sharing, by the node; None where it says nothing."""
    found: dict[str, Condition] = {}
    for inventory in list_all(api, NODE_INVENTORIES):
        conditions = (inventory.get("status") or {}).get("conditions") or ()
        ours = (each for each in conditions if each["type"] == SHARING_CONFIGURED)
        said = ((str(each["status"]), " ".join(str(each.get("message") or "").split())) for each in ours)
        found[inventory["metadata"]["name"]] = next(said, None)
    return found


def wait_for_shares(api: KubeApi, before: Mapping[str, Condition], say: Callable[[str], None]) -> str:
    """Until each node has said what it makes of the ConfigMap, and offers the shares if it made some, or for a while.

    ``before``: the conditions from before the ConfigMap was applied. What is known is said at once. Returns what is
    wrong; empty for nothing.
    """
    say(f"waiting for what the nodes make of ConfigMap {_CONFIG_MAP} ...")
    began = time.monotonic()
    _wait(api, lambda now: all(now[node] not in (None, before.get(node)) for node in now), _SECONDS)
    return _wrong(api, say, began)


def wait_for_rules(api: KubeApi, say: Callable[[str], None], timeout: float, *, fenced: bool) -> str:
    """The same for the rules of a DriverConfiguration. ``timeout``: before a node offers its devices in fractions it
    measures the memory of each, one after the other. ``fenced``: nodes have MPS, which they find when it serves."""
    say("waiting for what the nodes make of the rules about sharing ...")

    def all_true(now: Mapping[str, Condition]) -> bool:
        return all(condition is not None and condition[0] == "True" for condition in now.values())

    began = time.monotonic()
    _wait(api, all_true, timeout)
    if all_true(sharing_conditions(api)):
        _wait(api, lambda _now: _are_complete(api) and not (fenced and _without_fence(api)), _SECONDS)
    return _wrong(api, say, began)


def _wait(api: KubeApi, is_made: Callable[[Mapping[str, Condition]], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not is_made(sharing_conditions(api)):
        time.sleep(_POLL_SECONDS)


def _wrong(api: KubeApi, say: Callable[[str], None], began: float) -> str:
    """Says what the nodes say, and returns what of that is wrong."""
    now, seconds = sharing_conditions(api), time.monotonic() - began
    wrong = []
    for condition, nodes in _by_condition(now).items():
        where = "each node" if len(nodes) == len(now) else ", ".join(nodes)
        if condition is None:
            sentence = f"condition {SHARING_CONFIGURED} is not there on {where} after {seconds:.0f} s"
        else:
            sentence = f"{SHARING_CONFIGURED} is {condition[0]} on {where}: {condition[1]}"
        say(sentence)
        if condition is None or condition[0] != "True":
            wrong.append(sentence)
    if not wrong and (without := _without_shares(api)):
        wrong.append(f"no shares are offered by {', '.join(without)}, {_SECONDS:.0f} s after that was said")
        say(wrong[0])
    return "; ".join(wrong)


def _by_condition(conditions: Mapping[str, Condition]) -> dict[Condition, list[str]]:
    """The nodes that say the same."""
    found: dict[Condition, list[str]] = {}
    for node, condition in sorted(conditions.items()):
        found.setdefault(condition, []).append(node)
    return found


def _are_complete(api: KubeApi) -> bool:
    """Whether no pool is half written: the last devices that were measured have just changed theirs."""
    return not any(pool.problem for pool in pools_from_slices(list_all(api, RESOURCE_SLICES)))


def _without_fence(api: KubeApi) -> bool:
    """Whether a device is offered in fractions that nothing fences."""
    return any(
        (device.get("attributes") or {}).get(BACKEND, {}).get("string") == SharingBackend.NONE
        for each in list_all(api, RESOURCE_SLICES)
        for device in each["spec"].get("devices") or ()
    )


def _without_shares(api: KubeApi) -> list[str]:
    """The pools without a device that is offered in shares, which come shortly after the condition."""
    deadline = time.monotonic() + _SECONDS
    while True:
        slices = list_all(api, RESOURCE_SLICES)
        shared = {
            each["spec"]["pool"]["name"]
            for each in slices
            for device in each["spec"].get("devices") or ()
            if device.get("allowMultipleAllocations")
        }
        without = {each["spec"]["pool"]["name"] for each in slices} - shared
        if not without or time.monotonic() > deadline:
            return sorted(without)
        time.sleep(_POLL_SECONDS)
