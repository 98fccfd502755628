"""``--dry-run``: one look at the cluster, and the slices that the controller would write, as YAML. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from controller.features import ServerFeatures
from controller.inputs import InputListeners, Inputs
from controller.planning import devices_of, is_of_another_node, plan_pool
from controller.plugin_config import ObjectName
from controller.pool import offer
from controller.problem import Problem
from controller.reorder_pace import ReorderPace
from controller.sharing import decided, stored_sharing
from controller.sharing_told import sharing_told
from dra_driver.devices.plugin_sharing import rules_of
from dra_driver.devices.policy import DevicePolicy
from dra_driver.kube.interface import KubeApi
from dra_driver.slices.cutting import PoolOwner
from dra_driver.slices.diff import WritePlan
from dra_driver.slices.render import render_plan

_SYNC_SECONDS = 30.0


def dry_run(
    api: KubeApi, driver: str, policy: DevicePolicy, out: TextIO, *, plugin_config: ObjectName | None = None
) -> int:
    """Print to ``out``; returns the exit code: 0, or 1 when the cluster could not be listed.

    Asks the server by dry-run requests only, and only when a pool has counters or shares.
    """
    inputs = Inputs(api, driver, InputListeners(lambda _name: None, lambda _name, _old, _new: None), plugin_config)
    inputs.start()
    try:
        if not inputs.wait_for_sync(_SYNC_SECONDS):
            missing = ", ".join(inputs.not_synced())
            out.write(f"# cannot list {missing} within {_SYNC_SECONDS:.0f} s; see the log for the server's answers\n")
            return 1
        if not inputs.wait_for_plugin_config(_SYNC_SECONDS):
            out.write(f"# cannot read ConfigMap {plugin_config} now: sharing stays as it is in force\n")
        features = ServerFeatures(api)
        for name in inputs.pools():
            out.write(_describe(name, inputs, features, driver, policy))
        if not inputs.pools():
            out.write("# no NodeInventory and no ResourceSlice of this driver: nothing to write\n")
    finally:
        inputs.stop()
    return 0


def _describe(name: str, inputs: Inputs, features: ServerFeatures, driver: str, policy: DevicePolicy) -> str:
    inventory, node = inputs.inventory(name), inputs.node(name)
    if node is None or inventory is None or is_of_another_node(inventory, node):
        missing = "Node" if node is None else "NodeInventory"
        return f"# node {name}: no {missing}, its slices are left as they are\n"
    sharing = decided(inputs.plugin_config(), stored_sharing(inventory), node, inventory, policy)
    offered = offer(inventory, policy.sharing_also(rules_of(sharing.in_force)))
    if offered.device_set is None:
        return f"# node {name}: the inventory says nothing yet, slices are left as they are\n{_notes(offered.problems)}"
    owner = PoolOwner(driver, name, node["metadata"]["uid"])
    existing = inputs.slices(name)
    server = features.for_devices(offered.device_set, owner)
    plan = plan_pool(
        owner,
        offered.device_set,
        existing=existing,
        known=devices_of(existing),
        in_use=inputs.in_use(name),
        by_shares=inputs.by_shares(name),
        features=server,
        reorder=ReorderPace().at(0.0, policy.mig.packing),
    )
    told = sharing_told(sharing, offered.device_set, offered.not_shared, server, plan.devices)
    about_sharing = (Problem(told.reason, told.message),) if told and not told.is_usual else ()
    notes = _notes((*offered.problems, *plan.problems, *about_sharing))
    if plan.writes is None:
        return f"# node {name}: cannot be published\n{notes}"
    return f"# node {name}: {_marks(plan.writes)}\n{notes}{render_plan(plan.writes)}"


def _marks(plan: WritePlan) -> str:
    proof = " (created once the plugin proves that it is registered)" if plan.creates else ""
    return f"+ {len(plan.creates)}  ~ {len(plan.updates)}  - {len(plan.deletes)} slices{proof}"


def _notes(problems: Iterable[Problem]) -> str:
    return "".join(f"#   {problem.reason}: {problem.message}\n" for problem in problems)
