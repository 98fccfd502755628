"""Takes one pod from bound to running to gone, one step per call, again and again until the step succeeds.

Order, as in the kubelet: claims are prepared, then containers created; containers are stopped, then claims unprepared,
then the pod is reported ended or removed. A pod whose unprepare fails stays. It relies on the DRA manager for claims,
on the runtime for containers, and keeps what each container saw.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dra_driver.files import write_atomically
from dra_driver.kube.backoff import Backoff
from dra_driver.kube.interface import PODS, ApiError, Conflict, KubeApi, NotFound, Obj, Preconditions
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from dra_driver.simulation.kubelet import status
from dra_driver.simulation.kubelet.manager import DraManager, PodResourcesError
from dra_driver.simulation.kubelet.options import KubeletOptions
from dra_driver.simulation.runtime.runtime import (
    ContainerCreateError,
    ContainerRequest,
    ContainerRuntime,
    ContainerView,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodKey:
    """A pod that is never mistaken for another one of the same name."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, pod: Obj) -> PodKey:
        metadata = pod["metadata"]
        return cls(metadata["namespace"], metadata["name"], metadata["uid"])


class ViewStore:
    """Views of all containers ever created here, in memory and as ``<folder>/<podUID>/<container>.json``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._views: dict[tuple[str, str], ContainerView] = {}

    def add(self, view: ContainerView) -> None:
        folder = self._folder / view.pod_uid
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{view.container}.json", json.dumps(view.to_dict(), indent=1).encode())
        with self._lock:
            self._views[(view.pod_uid, view.container)] = view

    def get(self, pod_uid: str, container: str) -> ContainerView | None:
        with self._lock:
            return self._views.get((pod_uid, container))

    def all(self) -> tuple[ContainerView, ...]:
        """In the order in which the containers were created first."""
        with self._lock:
            return tuple(self._views.values())


class PodWorker:
    """:meth:`sync` is called by several threads, but never by two for one pod."""

    def __init__(
        self,
        api: KubeApi,
        manager: DraManager,
        runtime: ContainerRuntime,
        views: ViewStore,
        events: EventRecorder,
        options: KubeletOptions,
        lookup: Callable[[PodKey], Obj | None],
    ) -> None:
        """``lookup`` gives the pod as last seen, or None when the API server has it no more."""
        self._api = api
        self._manager = manager
        self._runtime = runtime
        self._views = views
        self._events = events
        self._options = options
        self._lookup = lookup
        self._backoffs: dict[PodKey, Backoff] = {}
        # The last phase reported, newer than what the watch has delivered, and since when containers run.
        self._phases: dict[str, str] = {}
        self._started: dict[str, tuple[str, float]] = {}
        self._healths: dict[str, dict[str, list[Obj]]] = {}  # as last reported

    def sync(self, key: PodKey) -> float | None:
        """One step for one pod; returns seconds until it wants the next one, None when only a change brings one."""
        try:
            again = self._sync(key)
        except (PodResourcesError, ContainerCreateError, ApiError) as error:
            options = self._options
            backoff = self._backoffs.setdefault(
                key, Backoff(options.pod_backoff, options.pod_backoff_limit, jitter=0.2)
            )
            logger.info("pod sync failed, will retry: %s", error, extra={"pod": f"{key.namespace}/{key.name}"})
            return backoff.next_delay()
        self._backoffs.pop(key, None)
        return again

    def _sync(self, key: PodKey) -> float | None:
        pod = self._lookup(key)
        if pod is None:
            self._release(key.uid)
            self._phases.pop(key.uid, None)
            self._healths.pop(key.uid, None)
            return None
        if pod["metadata"].get("deletionTimestamp"):
            self._release(key.uid)
            self._remove(key)
            return None
        match self._phases.get(key.uid) or (pod.get("status") or {}).get("phase"):
            case "Succeeded" | "Failed":
                self._release(key.uid)
                return None
            case "Running" if self._runtime.running(key.uid):
                return self._finish(key, pod)
            case _:
                return self._start(key, pod)

    def _start(self, key: PodKey, pod: Obj) -> float | None:
        if not (pod.get("status") or {}).get("containerStatuses"):
            self._report(key, status.waiting(pod, "ContainerCreating"))
        try:
            self._manager.prepare(pod)
        except PodResourcesError as error:
            self._warn(pod, "FailedPrepareDynamicResources", f"Failed to prepare dynamic resources: {error}")
            raise
        try:
            for container in pod["spec"].get("initContainers") or ():
                self._create(key, pod, container)
                if container.get("restartPolicy") != "Always":  # a sidecar stays
                    self._runtime.stop(key.uid, container["name"])
            for container in pod["spec"]["containers"]:
                self._create(key, pod, container)
        except ContainerCreateError as error:
            self._warn(pod, "Failed", f"Error: {error}")
            self._report(key, status.waiting(pod, "CreateContainerError", str(error)))
            raise
        started = status.now()
        self._started[key.uid] = (started, time.monotonic())
        self._report_running(key, pod, started)
        return self._options.container_run_time if status.containers_exit(pod) else None

    def _finish(self, key: PodKey, pod: Obj) -> float | None:
        """Tells changes of its devices' health; ends a pod whose containers end by themselves, after their time."""
        if self._manager.resource_health(pod) != self._healths.get(key.uid, {}):
            self._report_running(key, pod, status.running_since(pod) or status.now())
        if not status.containers_exit(pod):
            return None
        started, since = self._started.setdefault(key.uid, (status.now(), time.monotonic()))
        remaining = since + self._options.container_run_time - time.monotonic()
        if remaining > 0:
            return remaining
        self._release(key.uid)
        self._report(key, status.succeeded(pod, started))
        return None

    def _report_running(self, key: PodKey, pod: Obj, started: str) -> None:
        health = self._manager.resource_health(pod)
        self._report(key, status.with_health(status.running(pod, started), health))
        self._healths[key.uid] = health

    def _create(self, key: PodKey, pod: Obj, container: Obj) -> None:
        name = container["name"]
        if any(view.container == name for view in self._runtime.running(key.uid)):
            return  # from an earlier try
        request = ContainerRequest(
            namespace=key.namespace,
            pod=key.name,
            pod_uid=key.uid,
            container=name,
            env=status.container_env(container),
            cdi_devices=self._manager.cdi_ids(pod, container),
        )
        self._views.add(self._runtime.create(request))

    def _release(self, pod_uid: str) -> None:
        """1. Containers. 2. Claims."""
        self._runtime.remove(pod_uid)
        self._started.pop(pod_uid, None)
        if self._manager.holds_claims(pod_uid):
            self._manager.unprepare(pod_uid)

    def _remove(self, key: PodKey) -> None:
        try:
            self._api.delete(
                PODS, key.name, key.namespace, preconditions=Preconditions(uid=key.uid), grace_period_seconds=0
            )
        except (NotFound, Conflict):
            logger.debug("pod %s is gone already", key.name)

    def _report(self, key: PodKey, new_status: Obj) -> None:
        patch = {"metadata": {"uid": key.uid}, "status": new_status}
        try:
            self._api.patch(PODS, key.name, patch, key.namespace, subresource="status")
        except (NotFound, Conflict):
            logger.debug("pod %s is gone or was replaced", key.name)
            return
        self._phases[key.uid] = new_status["phase"]

    def _warn(self, pod: Obj, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        about = ObjectRef("v1", "Pod", metadata["name"], metadata["uid"], metadata["namespace"])
        self._events.event(about, EventKind.WARNING, reason, message)
