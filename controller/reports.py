"""Tells people about a node's pool: Events on Node and NodeInventory, conditions, a metric, a log line.

Conditions are written beside those of the plugin, which owns the status: only when they change, with the
resourceVersion that was seen, and once; if the plugin overwrites one, that is left as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from controller.metrics import ControllerMetrics
from controller.node_state import NodeState
from controller.problem import Problem, Told
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, Conflict, KubeApi, NotFound, Obj, Resource
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from dra_driver.text import shortened

logger = logging.getLogger(__name__)

FULLY_PUBLISHED = "FullyPublished"


def published_told(degraded: Problem | None) -> Told:
    """Whether the API server makes us publish less; its Events are those of the problem."""
    if degraded is None:
        return Told(FULLY_PUBLISHED, "True", "AsDesired", "", is_usual=True)
    return Told(FULLY_PUBLISHED, "False", degraded.reason, degraded.message)


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

    def conditions(self, state: NodeState, told: Sequence[Told], *, inventory: Obj, node: Obj) -> None:
        """Say in the NodeInventory what is ``told`` and not there yet, and tell of it. Raises ApiError."""
        conditions: list[Obj] = (inventory.get("status") or {}).get("conditions") or []
        present = {str(found.get("type")): found for found in conditions}
        news = [each for each in told if _is_news(each, present.get(each.type), state.told.get(each.type))]
        if not news:
            return
        written = [_condition(each, present.get(each.type), self._now()) for each in news]
        kinds = {each.type for each in news}
        others = [found for found in conditions if found.get("type") not in kinds]
        patch = {
            "metadata": {"resourceVersion": inventory["metadata"]["resourceVersion"]},
            "status": {"conditions": [*others, *written]},
        }
        try:
            state.inventory = self._api.patch(
                NODE_INVENTORIES, inventory["metadata"]["name"], patch, subresource="status"
            )
        except (Conflict, NotFound) as error:
            logger.info("condition not written, the inventory changed and will be looked at again: %s", error)
            return
        for each in news:
            state.told[each.type] = each
            if each.event is not None:
                logger.info("%s", each.message, extra={"node": node["metadata"]["name"], "reason": each.reason})
                for reference in (_reference(NODE_INVENTORIES, inventory), _reference(NODES, node)):
                    self._events.event(reference, each.event, each.reason, each.message)

    def _now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock()))


def _is_news(told: Told, present: Obj | None, before: Told | None) -> bool:
    if present is None and told.is_usual:
        return False  # nothing else was ever said
    found = present and (present.get("status"), present.get("reason"), present.get("message") or "")
    return told != before and found != (told.status, told.reason, shortened(told.message))


def _condition(told: Told, present: Obj | None, now: str) -> Obj:
    since = present.get("lastTransitionTime") if present and present.get("status") == told.status else None
    return {
        "type": told.type,
        "status": told.status,
        "reason": told.reason,
        "message": shortened(told.message),
        "lastTransitionTime": since or now,
    }


def _reference(resource: Resource, obj: Obj) -> ObjectRef:
    metadata = obj["metadata"]
    return ObjectRef(resource.api_version, resource.kind, metadata["name"], metadata.get("uid", ""))
