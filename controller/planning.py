"""From what a node offers to the writes that its pool needs, as one pure step; the publisher and --dry-run share it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from controller.pool import is_degraded
from controller.problem import Problem
from controller.reorder_pace import Reorder
from controller.retention import retain, retention_problem
from dra_driver.devices.model import DeviceSet
from dra_driver.devices.reordering import arrange
from dra_driver.kube.interface import Obj
from dra_driver.slices.cutting import Cut, PoolDoesNotFit, PoolOwner, desired_slices
from dra_driver.slices.decode import published_devices
from dra_driver.slices.diff import WritePlan, plan_writes
from dra_driver.slices.features import ApiFeatures

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """``devices`` is what the pool will hold, ``degraded`` what the API server makes us leave out. ``writes`` is None
    when the devices do not fit into slices; the problem says why. ``is_settled`` is false when a better order of the
    devices than the published one is known; it is in ``writes`` if reordering was allowed."""

    devices: DeviceSet
    degraded: Problem | None
    problems: tuple[Problem, ...]
    writes: WritePlan | None = field(hash=False)
    is_settled: bool


def plan_pool(
    owner: PoolOwner,
    offered: DeviceSet,
    *,
    existing: Sequence[Obj],
    known: DeviceSet,
    in_use: frozenset[str],
    by_shares: frozenset[str] = frozenset(),
    features: ApiFeatures,
    generation_floor: int = 0,
    reorder: Reorder = Reorder.NEVER,
) -> PoolPlan:
    """``known``: devices that are, or lately were, published; ``by_shares``: those in use that claims hold by shares
    only. See :func:`controller.retention.retain`."""
    degraded = is_degraded(offered, features)
    retention = retain(offered, known, in_use, owner.driver, features, by_shares)
    problems = [problem for problem in (degraded, retention_problem(retention)) if problem]
    devices, is_settled = _in_order(retention.device_set, known, in_use, features, reorder)
    writes = None
    try:
        cut = Cut.BY_GPU if reorder is Reorder.NEVER else Cut.BY_PROFILE
        desired = desired_slices(devices, owner, features, cut)
        writes = plan_writes(desired, existing, owner=owner, generation_floor=generation_floor)
    except PoolDoesNotFit as error:
        problems.append(Problem(error.reason, str(error)))
    return PoolPlan(devices, degraded, tuple(problems), writes, is_settled)


def _in_order(
    pool: DeviceSet, known: DeviceSet, in_use: frozenset[str], features: ApiFeatures, reorder: Reorder
) -> tuple[DeviceSet, bool]:
    """The pool in the order to publish, and whether there is none that is better. Where counters live beside their
    devices (1.34), each GPU has its own slice and the order stays as it is."""
    if reorder is Reorder.NEVER or not pool.counter_sets or features.combined_counters:
        return pool, True
    arrangement = arrange(pool.devices, in_use, [device.name for device in known.devices])
    chosen = arrangement.wanted if reorder is Reorder.NOW else arrangement.published
    return DeviceSet(chosen, pool.counter_sets), arrangement.is_settled


def devices_of(slices: Sequence[Obj]) -> DeviceSet:
    """The published devices, as far as they can be read back."""
    try:
        return published_devices(slices)
    except (KeyError, ValueError, TypeError) as error:
        # Another driver's way of writing; nothing can be retained from it, but the pool can still be written.
        logger.warning("published devices cannot be read back: %r", error)
        return DeviceSet()


def is_of_another_node(inventory: Obj, node: Obj) -> bool:
    """Whether the inventory belongs to an earlier Node object of this name, with which it will be deleted."""
    owners = [owner for owner in inventory["metadata"].get("ownerReferences") or [] if owner.get("kind") == "Node"]
    return bool(owners) and all(owner.get("uid") != node["metadata"]["uid"] for owner in owners)
