"""The kubelet's DRA manager: prepares a pod's claims before it starts, unprepares them after its end.

Rules (kubelet cm/dra/manager.go): everything is checked before anything is remembered; one call per driver carries all
claims of the pod that are not prepared; one failed claim fails the pod, and the next try sends the whole batch; the
last pod of a claim unprepares it; a claim that is not remembered needs no call.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dra_driver.kube.interface import RESOURCE_CLAIMS, ApiError, KubeApi, Obj
from dra_driver.simulation.kubelet.claim_cache import ClaimCache, ClaimInfo
from dra_driver.simulation.kubelet.claims import (
    PodClaim,
    PodClaimError,
    check_claim,
    claim_drivers,
    container_claims,
    container_requests,
    pod_claims,
)
from dra_driver.simulation.kubelet.health import HealthCache
from dra_driver.simulation.kubelet.options import KubeletOptions
from dra_driver.simulation.kubelet.plugin import CallFailed, ClaimName, Device, Plugin
from dra_driver.simulation.kubelet.plugins import PluginManager

logger = logging.getLogger(__name__)

PREPARE = "prepare"
UNPREPARE = "unprepare"
_CALLS_KEPT = 10_000

Result = TypeVar("Result")


class PodResourcesError(Exception):
    """The pod's claims could not be prepared or unprepared now; the text is what the kubelet puts into its Event."""


@dataclass(frozen=True, slots=True)
class Call:
    """One gRPC call that was made, for tests and reports. ``error`` is empty on success."""

    operation: str  # "prepare" or "unprepare"
    driver: str
    endpoint: str
    claim_uids: tuple[str, ...]
    seconds: float
    error: str


class DraManager:
    """Thread-safe; several pods may be prepared at the same time, as in the kubelet."""

    def __init__(
        self, api: KubeApi, plugins: PluginManager, cache: ClaimCache, health: HealthCache, options: KubeletOptions
    ) -> None:
        self._api = api
        self._plugins = plugins
        self._cache = cache
        self._health = health
        self._options = options
        self.calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        self.violations: list[str] = []  # answers to repeated calls that were not the same

    def prepare(self, pod: Obj) -> None:
        """Raises :class:`PodResourcesError`; then the pod may not start and the call is to be made again."""
        try:
            self._prepare(pod)
        except (PodClaimError, CallFailed) as error:
            raise PodResourcesError(f"prepare dynamic resources: {error}") from error

    def cdi_ids(self, pod: Obj, container: Obj) -> tuple[str, ...]:
        """CDI names for one container of a pod whose claims are prepared."""
        namespace = pod["metadata"]["namespace"]
        ids: list[str] = []
        with self._cache.lock:
            for claim_name, request in container_requests(pod, container):
                info = self._cache.get(namespace, claim_name)
                if info is None:
                    raise PodResourcesError(
                        f"internal error: unable to get claim info for ResourceClaim {claim_name} "
                        f"in namespace {namespace}"
                    )
                ids.extend(info.cdi_ids(request))
        return tuple(ids)

    def unprepare(self, pod_uid: str) -> None:
        """Raises :class:`PodResourcesError`; then the pod stays and the call is to be made again."""
        try:
            self._unprepare(pod_uid)
        except CallFailed as error:
            raise PodResourcesError(f"unprepare dynamic resources: {error}") from error

    def holds_claims(self, pod_uid: str) -> bool:
        return bool(self._cache.of_pod(pod_uid))

    def pods_of_driver(self, driver: str) -> set[str]:
        """UIDs of the pods that hold devices of ``driver``."""
        return self._cache.pod_uids(driver)

    def resource_health(self, pod: Obj) -> dict[str, list[Obj]]:
        """By container what goes into its status as ``allocatedResourcesStatus``; empty with the feature off."""
        if not self._options.health_services:
            return {}
        namespace = pod["metadata"]["namespace"]
        found: dict[str, list[Obj]] = {}
        with self._cache.lock:
            for container in pod["spec"]["containers"]:
                for name, claim_name, request in container_claims(pod, container):
                    info = self._cache.get(namespace, claim_name)
                    devices = info.devices_of(request) if info else ()
                    resources = [self._health_of(driver, device) for driver, device in devices]
                    found.setdefault(container["name"], []).append({"name": name, "resources": resources})
        return found

    def _health_of(self, driver: str, device: Device) -> Obj:
        state = self._health.state(driver, device)
        # One id for one device: the first of its CDI names.
        identity = device.cdi_ids[0] if device.cdi_ids else f"{driver}/{device.pool}/{device.device}"
        return {
            "resourceID": identity,
            "health": state.health,
            **({"message": state.message} if state.message else {}),
        }

    def reconcile(self, active_pod_uids: Collection[str]) -> None:
        """Unprepare claims of pods that the API server no longer has."""
        for pod_uid in self._cache.pod_uids() - set(active_pod_uids):
            try:
                self.unprepare(pod_uid)
            except PodResourcesError as error:
                logger.info("unpreparing in the reconcile loop failed, will retry: %s", error, extra={"pod": pod_uid})

    def _prepare(self, pod: Obj) -> None:
        wanted = [self._resolve(pod, claim) for claim in pod_claims(pod)]
        plugins = {driver: self._plugins.get(driver) for info in wanted for driver in info.drivers}
        batch = self._remember(pod, wanted)
        for driver, plugin in plugins.items():
            infos = [info for info in batch if driver in info.drivers]
            if not infos:
                continue
            names = [_name(info) for info in infos]
            answers = self._call(PREPARE, plugin, names, plugin.prepare)
            with self._cache.lock:
                for info in infos:
                    info.devices[driver] = answers[info.uid]
        if batch:
            with self._cache.lock:
                for info in batch:
                    info.prepared = True
                self._cache.save()

    def _resolve(self, pod: Obj, pod_claim: PodClaim) -> ClaimInfo:
        namespace, name = pod["metadata"]["namespace"], pod_claim.claim_name
        try:
            claim = self._api.get(RESOURCE_CLAIMS, name, namespace)
        except ApiError as error:
            raise PodClaimError(f"fetch ResourceClaim {name}: {error}") from error
        check_claim(pod, pod_claim, claim)
        return ClaimInfo(namespace, name, claim["metadata"]["uid"], claim_drivers(claim))

    def _remember(self, pod: Obj, wanted: Sequence[ClaimInfo]) -> list[ClaimInfo]:
        """Puts the pod into each claim's entry; returns the entries that still have to be prepared."""
        batch = []
        with self._cache.lock:
            for info in wanted:
                known = self._cache.get(info.namespace, info.name)
                if known is None:
                    self._cache.add(info)
                    known = info
                elif known.uid != info.uid:
                    raise PodClaimError(
                        f"old ResourceClaim with same name {info.name} and different UID {known.uid} still exists "
                        "(previous pod force-deleted?!)"
                    )
                known.pod_uids.add(pod["metadata"]["uid"])
                if not known.prepared:
                    batch.append(known)
            if wanted:
                self._cache.save()
        return batch

    def _unprepare(self, pod_uid: str) -> None:
        last: list[ClaimInfo] = []
        claims = self._cache.of_pod(pod_uid)
        with self._cache.lock:
            for info in claims:
                if len(info.pod_uids) > 1:
                    info.pod_uids.discard(pod_uid)
                else:
                    last.append(info)
        drivers = dict.fromkeys(driver for info in last for driver in info.drivers)
        for driver in drivers:
            names = [_name(info) for info in last if driver in info.drivers]
            plugin = self._plugins.get(driver)
            self._call(UNPREPARE, plugin, names, plugin.unprepare)
        if claims:
            with self._cache.lock:
                for info in last:
                    self._cache.remove(info)
                self._cache.save()

    def _call(
        self,
        operation: str,
        plugin: Plugin,
        claims: Sequence[ClaimName],
        send: Callable[[Sequence[ClaimName], float], Result],
    ) -> Result:
        answer = self._send(operation, plugin, claims, send)
        if self._options.repeat_calls:
            again = self._send(operation, plugin, claims, send)
            if again != answer:
                text = f"repeated {operation} of {[claim.uid for claim in claims]} answered {again}, before {answer}"
                self.violations.append(text)
                raise CallFailed(text)
        return answer

    def _send(
        self,
        operation: str,
        plugin: Plugin,
        claims: Sequence[ClaimName],
        send: Callable[[Sequence[ClaimName], float], Result],
    ) -> Result:
        started = time.monotonic()
        failure = ""
        try:
            return send(claims, self._options.call_timeout)
        except CallFailed as error:
            failure = str(error)
            raise
        finally:
            seconds = time.monotonic() - started
            uids = tuple(claim.uid for claim in claims)
            self.calls.append(Call(operation, plugin.driver, plugin.endpoint, uids, seconds, failure))


def _name(info: ClaimInfo) -> ClaimName:
    return ClaimName(info.namespace, info.name, info.uid)
