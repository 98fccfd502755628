"""Tells people what is wrong with a node's pool: Events on Node and NodeInventory, one condition, a metric, a log line.

The condition is written beside those of the plugin, which owns the status: only when it changes, with the
resourceVersion that was seen, and once; if the plugin overwrites it, that is left as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from controller.metrics import ControllerMetrics
from controller.node_state import NodeState
from controller.problem import Problem
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, Conflict, KubeApi, NotFound, Obj, Resource
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef

logger = logging.getLogger(__name__)

CONDITION = "FullyPublished"


class Reporter:
    """Used by all workers; stateless but for its collaborators."""

    def __init__(
        self,
        api: KubeApi,
        events: EventRecorder,
        metrics: ControllerMetrics,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._events = events
        self._metrics = metrics
        self._wall_clock = wall_clock

    def problems(self, state: NodeState, problems: Sequence[Problem], *, inventory: Obj, node: Obj) -> None:
        """Report those of ``problems`` that are new for this node. Never fails."""
        for problem in problems:
            if problem in state.problems:
                continue
            name = node["metadata"]["name"]
            self._metrics.problems.labels(problem.reason).inc()
            logger.warning("%s", problem.message, extra={"node": name, "reason": problem.reason})
            for reference in (_reference(NODE_INVENTORIES, inventory), _reference(NODES, node)):
                self._events.event(reference, EventKind.WARNING, problem.reason, problem.message)
        state.problems = tuple(problems)

    def condition(self, state: NodeState, inventory: Obj, degraded: Problem | None) -> None:
        """Say in the NodeInventory whether the API server makes us publish less. Raises ApiError."""
        status, reason = ("False", degraded.reason) if degraded else ("True", "AsDesired")
        conditions: list[Obj] = (inventory.get("status") or {}).get("conditions") or []
        present = next((found for found in conditions if found.get("type") == CONDITION), None)
        if present is None and degraded is None:
            return  # nothing was ever missing
        if state.condition == status or (present is not None and present.get("status") == status):
            return
        condition = {
            "type": CONDITION,
            "status": status,
            "reason": reason,
            "message": degraded.message if degraded else "",
            "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock())),
        }
        others = [found for found in conditions if found.get("type") != CONDITION]
        patch = {
            "metadata": {"resourceVersion": inventory["metadata"]["resourceVersion"]},
            "status": {"conditions": [*others, condition]},
        }
        try:
            self._api.patch(NODE_INVENTORIES, inventory["metadata"]["name"], patch, subresource="status")
        except (Conflict, NotFound) as error:
            logger.info("condition not written, the inventory changed and will be looked at again: %s", error)
            return
        state.condition = status


def _reference(resource: Resource, obj: Obj) -> ObjectRef:
    metadata = obj["metadata"]
    return ObjectRef(resource.api_version, resource.kind, metadata["name"], metadata.get("uid", ""))
