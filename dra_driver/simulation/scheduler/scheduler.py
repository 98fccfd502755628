"""A scheduler for the embedded cluster: one thread that places waiting pods with the project's own allocator.

A round reads everything afresh, so no in-flight bookkeeping is needed: what the round itself allocates is added to its
own copy. It is not kube-scheduler: no CPU or memory, no preemption, no parallel nodes. Two schedulers on the same
devices are unsafe, as in a real cluster.
"""

from __future__ import annotations

import calendar
import logging
import time
import uuid
from collections import Counter

from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.selectors import SelectorEngine
from dra_driver.kube.interface import (
    DEVICE_CLASSES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ApiError,
    Conflict,
    NotFound,
    Obj,
)
from dra_driver.kube.lists import list_all
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from dra_driver.simulation.rounds import Rounds
from dra_driver.simulation.scheduler.commit import SchedulerApi, commit
from dra_driver.simulation.scheduler.plan import Cluster, Placement, place
from dra_driver.simulation.scheduler.pods import FINISHED_PHASES, is_waiting

logger = logging.getLogger(__name__)

_WATCHED = (PODS, NODES, RESOURCE_SLICES, RESOURCE_CLAIMS, DEVICE_CLASSES)


class Scheduler:
    """Thread ``scheduler`` between start and stop. :meth:`run_once` is one round, for tests."""

    def __init__(self, api: SchedulerApi, *, engine: SelectorEngine | None = None, patience: float = 2.0) -> None:
        """``patience``: seconds for which a new pod may wait for its claims to be made before that is reported."""
        self._api = api
        self._engine = engine or CelEngine()
        self._patience = patience
        self._events = EventRecorder(api, "default-scheduler")
        self._rounds = Rounds("scheduler", api, _WATCHED, self._events, self.run_once)

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def run_once(self) -> bool:
        """Try every waiting pod, oldest first. False when something has to be tried again soon."""
        pods = list_all(self._api, PODS)
        waiting = sorted((pod for pod in pods if is_waiting(pod)), key=_age)
        if not waiting:
            return True
        cluster = self._read(pods)
        results = [self._schedule(pod, cluster) for pod in waiting]
        return all(results)

    def _read(self, pods: list[Obj]) -> Cluster:
        running = (pod for pod in pods if (pod.get("status") or {}).get("phase") not in FINISHED_PHASES)
        claims = list_all(self._api, RESOURCE_CLAIMS)
        return Cluster(
            nodes=list_all(self._api, NODES),
            slices=list_all(self._api, RESOURCE_SLICES),
            classes=list_all(self._api, DEVICE_CLASSES),
            claims={(claim["metadata"]["namespace"], claim["metadata"]["name"]): claim for claim in claims},
            pods_per_node=Counter(pod["spec"]["nodeName"] for pod in running if pod["spec"].get("nodeName")),
        )

    def _schedule(self, pod: Obj, cluster: Cluster) -> bool:
        decision = place(pod, cluster, self._engine)
        if not isinstance(decision, Placement):
            if decision.passing and _age_in_seconds(pod) < self._patience:
                return False
            return self._report(pod, decision.message)
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        try:
            written = commit(self._api, pod, decision, _now(), _new_share_id)
        except (Conflict, NotFound) as error:
            logger.info("pod %s/%s changed while it was placed, will retry: %s", namespace, name, error)
            return False
        except ApiError as error:
            logger.warning("pod %s/%s could not be placed, will retry: %s", namespace, name, error)
            return False
        for claim in written:
            cluster.claims[(namespace, claim["metadata"]["name"])] = claim
        cluster.pods_per_node[decision.node] += 1
        message = f"Successfully assigned {namespace}/{name} to {decision.node}"
        self._events.event(_reference(pod), EventKind.NORMAL, "Scheduled", message)
        return True

    def _report(self, pod: Obj, message: str) -> bool:
        """Condition PodScheduled=False and an Event, only when the reason is new: a quiet cluster stays quiet."""
        status = pod.get("status") or {}
        conditions = status.get("conditions") or []
        before: Obj = next((entry for entry in conditions if entry["type"] == "PodScheduled"), {})
        if before.get("status") == "False" and before.get("message") == message:
            return True
        changed = before.get("lastTransitionTime") if before.get("status") == "False" else None
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": changed or _now(),
        }
        others = [entry for entry in conditions if entry["type"] != "PodScheduled"]
        metadata = pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [*others, condition]}}
        try:
            self._api.patch(PODS, metadata["name"], patch, metadata["namespace"], subresource="status")
        except (Conflict, NotFound):
            return True  # gone or replaced: its successor is another pod
        self._events.event(_reference(pod), EventKind.WARNING, "FailedScheduling", message)
        return True


def _reference(pod: Obj) -> ObjectRef:
    metadata = pod["metadata"]
    return ObjectRef("v1", "Pod", metadata["name"], metadata["uid"], metadata["namespace"])


def _age(pod: Obj) -> tuple[str, int]:
    """Creation has whole seconds only; of one second, the one written first comes first."""
    version = pod["metadata"].get("resourceVersion") or "0"
    return pod["metadata"].get("creationTimestamp") or "", int(version) if version.isdigit() else 0


def _age_in_seconds(pod: Obj) -> float:
    created = calendar.timegm(time.strptime(pod["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
    return time.time() - created


def _new_share_id() -> str:
    return str(uuid.uuid4())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
