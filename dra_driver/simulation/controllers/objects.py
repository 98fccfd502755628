"""The part of kube-controller-manager that claims need: made from templates, freed and deleted after their pods.

One thread that looks at all pods and claims after every change; each step is idempotent, so a step that fails is simply
met again in the next round. Garbage collection by ownerReferences is the API's (EmbeddedApi).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dra_driver.kube.interface import (
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    ApiError,
    Conflict,
    Invalid,
    KubeApi,
    NotFound,
    Obj,
    Preconditions,
)
from dra_driver.kube.lists import list_all
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from dra_driver.simulation.controllers import claims as rules
from dra_driver.simulation.rounds import Rounds

logger = logging.getLogger(__name__)

_WATCHED = (PODS, RESOURCE_CLAIMS, RESOURCE_CLAIM_TEMPLATES)


class ClaimController:
    """Thread ``claim-controller`` between start and stop. :meth:`run_once` is one round, for tests."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._events = EventRecorder(api, "resource_claim")
        self._rounds = Rounds(
            "claim-controller", api, (PODS, RESOURCE_CLAIMS, RESOURCE_CLAIM_TEMPLATES), self._events, self.run_once
        )

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def run_once(self) -> bool:
        """False when something has to be tried again soon."""
        # Claims before pods: a pod that is missing from the later list did not exist when a claim of the earlier one
        # was read, or is gone; a claim is never taken from a pod that was only too new to be seen.
        claims = list_all(self._api, RESOURCE_CLAIMS)
        pods = {pod["metadata"]["uid"]: pod for pod in list_all(self._api, PODS)}
        results = [self._guarded(self._make_claims, pod, claims) for pod in pods.values()]
        results += [self._guarded(self._tidy, claim, pods) for claim in claims]
        return all(results)

    def _guarded(self, step: Callable[[Obj, Any], None], subject: Obj, others: Any) -> bool:
        """One object's trouble is its own."""
        metadata = subject["metadata"]
        try:
            step(subject, others)
        except (Conflict, NotFound) as error:
            logger.info("%s/%s changed meanwhile, will retry: %s", metadata["namespace"], metadata["name"], error)
            return False
        except ApiError as error:
            logger.warning("%s/%s failed, will retry: %s", metadata["namespace"], metadata["name"], error)
            return False
        return True

    def _make_claims(self, pod: Obj, claims: Sequence[Obj]) -> None:
        statuses = list((pod.get("status") or {}).get("resourceClaimStatuses") or ())
        made: list[Obj] = []
        for entry in rules.missing_template_claims(pod):
            claim = next((claim for claim in claims if rules.is_claim_for(claim, pod, entry["name"])), None)
            claim = claim or self._make_claim(pod, entry)
            if claim is not None:
                made.append({"name": entry["name"], "resourceClaimName": claim["metadata"]["name"]})
        if made:
            metadata = pod["metadata"]
            patch = {"metadata": {"uid": metadata["uid"]}, "status": {"resourceClaimStatuses": statuses + made}}
            self._api.patch(PODS, metadata["name"], patch, metadata["namespace"], subresource="status")

    def _make_claim(self, pod: Obj, entry: Obj) -> Obj | None:
        """None when the template does not exist (yet): its creation wakes the controller."""
        namespace, template_name = pod["metadata"]["namespace"], entry["resourceClaimTemplateName"]
        try:
            template = self._api.get(RESOURCE_CLAIM_TEMPLATES, template_name, namespace)
        except NotFound:
            self._warn(pod, f"ResourceClaimTemplate {namespace}/{template_name} does not exist")
            return None
        try:
            return self._api.create(RESOURCE_CLAIMS, rules.claim_from_template(pod, entry["name"], template))
        except Invalid as error:
            self._warn(pod, f"claim for {entry['name']!r} was refused: {error}")
            raise

    def _warn(self, pod: Obj, message: str) -> None:
        metadata = pod["metadata"]
        about = ObjectRef("v1", "Pod", metadata["name"], metadata["uid"], metadata["namespace"])
        self._events.event(about, EventKind.WARNING, "FailedResourceClaimCreation", message)

    def _tidy(self, claim: Obj, pods: Mapping[str, Obj]) -> None:
        """Free what no pod uses any more: reservedFor, then the allocation, then the finalizer, then the claim."""
        status = claim.get("status") or {}
        consumers = status.get("reservedFor") or []
        remaining = rules.remaining_consumers(claim, pods)
        leaving = bool(claim["metadata"].get("deletionTimestamp"))
        if len(remaining) < len(consumers) or (status.get("allocation") and not remaining and leaving):
            kept = {"allocation", "devices"} if remaining else set()
            fields = {name: value for name, value in status.items() if name in kept}
            fields |= {"reservedFor": remaining} if remaining else {}
            claim = self._api.update(RESOURCE_CLAIMS, {**claim, "status": fields}, subresource="status")
            if not remaining and rules.is_protected(claim):
                claim = self._api.update(RESOURCE_CLAIMS, rules.without_finalizer(claim))
        elif leaving and not consumers and rules.is_protected(claim):
            claim = self._api.update(RESOURCE_CLAIMS, rules.without_finalizer(claim))
        if not remaining and not leaving and rules.is_unneeded(claim, pods):
            metadata = claim["metadata"]
            same = Preconditions(uid=metadata["uid"])
            self._api.delete(RESOURCE_CLAIMS, metadata["name"], metadata["namespace"], preconditions=same)
