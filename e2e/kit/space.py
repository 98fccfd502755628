"""A test's own namespace: makes claims and pods in it, waits for them, looks into containers, leaves nothing behind."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dra_driver.cli.expectations import phase, unschedulable_message, waiting_message
from dra_driver.kube.interface import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    AlreadyExists,
    KubeApi,
    NotFound,
    Obj,
    Resource,
)
from dra_driver.kube.resources import SERVICE_ACCOUNTS
from dra_driver.simulation.kubelet import status
from e2e.kit import expected, views
from e2e.kit.kubectl import Kubectl, KubectlError
from e2e.kit.waiting import NotYet, eventually, holds_for

# The kubelet tries a failed prepare again only when it looks at the pod next, after 60 to 90 s with its default
# syncFrequency (pkg/kubelet/kuberuntime, SyncPod). See `failed_prepares` for one that no driver can help.
READY_SECONDS = 120.0
GONE_SECONDS = 60.0
UNSCHEDULABLE_SECONDS = 20.0
_STAYS_SECONDS = 1.0
_EXEC_SECONDS = 10.0
AUTHORIZER_LAGS = "no relationship found between node"


@dataclass(frozen=True, slots=True)
class Space:
    """Everything here happens in ``namespace``."""

    api: KubeApi = field(repr=False)
    kubectl: Kubectl = field(repr=False)
    namespace: str

    def open(self, labels: Mapping[str, str] | None = None) -> None:
        """Make the namespace; returns when pods can be made in it."""
        body = {"metadata": {"name": self.namespace, "labels": dict(labels or {})}}

        def make() -> None:
            try:
                self.api.create(NAMESPACES, body)
            except AlreadyExists:
                found = self.api.get(NAMESPACES, self.namespace)
                raise NotYet(f"namespace {self.namespace} is {found['status']['phase']}") from None

        eventually(make, GONE_SECONDS)
        self.wait_usable()

    def wait_usable(self) -> None:
        """Pods are refused before the namespace has its ServiceAccount, and wait for the ConfigMap if they want it."""
        for resource, name in ((SERVICE_ACCOUNTS, "default"), (CONFIG_MAPS, "kube-root-ca.crt")):
            eventually(partial(self._check_has, resource, name), READY_SECONDS, poll=0.05)

    def claim(self, name: str, spec: Obj) -> Obj:
        return self.api.create(RESOURCE_CLAIMS, {"metadata": self._metadata(name), "spec": spec})

    def template(self, name: str, spec: Obj) -> Obj:
        body = {"metadata": self._metadata(name), "spec": {"spec": spec}}
        return self.api.create(RESOURCE_CLAIM_TEMPLATES, body)

    def pod(self, body: Obj) -> Obj:
        """``body``: as :func:`e2e.kit.workloads.pod` makes it."""
        return self.api.create(PODS, {**body, "metadata": {**body["metadata"], "namespace": self.namespace}})

    def pods(self) -> dict[str, Obj]:
        return {pod["metadata"]["name"]: pod for pod in self.api.list(PODS, self.namespace).items}

    def claims(self) -> dict[str, Obj]:
        return {claim["metadata"]["name"]: claim for claim in self.api.list(RESOURCE_CLAIMS, self.namespace).items}

    def wait_ready(self, *names: str, timeout: float = READY_SECONDS) -> dict[str, Obj]:
        """The pods once all are Ready. Raises TimedOut saying what each of the others waits for."""

        def look() -> dict[str, Obj]:
            found = self.pods()
            waiting = [f"{name}: {state(found.get(name))}" for name in names if not is_ready(found.get(name))]
            if waiting:
                raise NotYet(f"pods are not Ready: {'; '.join(waiting)}")
            return {name: found[name] for name in names}

        return eventually(look, timeout)

    def stays_pending(self, name: str, *, timeout: float = UNSCHEDULABLE_SECONDS) -> str:
        """The scheduler's reason for not placing the pod, once it has said one and kept to it for a moment."""

        def look() -> str:
            found = self.api.get(PODS, name, self.namespace)
            message = unschedulable_message(found)
            if found["spec"].get("nodeName"):
                raise AssertionError(f"pod {name} was to stay Pending and was placed on {found['spec']['nodeName']}")
            if not message:
                raise NotYet(f"pod {name}: the scheduler has said nothing about it; {state(found)}")
            return message

        eventually(look, timeout)
        holds_for(lambda: self._check_unplaced(name), _STAYS_SECONDS)
        return look()

    def start_deleting(self, *names: str, grace: int | None = None) -> None:
        for name in names:
            with contextlib.suppress(NotFound):
                self.api.delete(PODS, name, self.namespace, grace_period_seconds=grace)

    def delete_pods(self, *names: str) -> None:
        """Returns when they are gone from the API, which is after they were unprepared."""
        self.start_deleting(*names)
        self.wait_gone(*names)

    def wait_gone(self, *names: str, timeout: float = GONE_SECONDS) -> None:
        def look() -> None:
            found = self.pods()
            if left := [f"{name}: {state(found[name])}" for name in names if name in found]:
                raise NotYet(f"pods are still there: {'; '.join(left)}")

        eventually(look, timeout)

    def delete_claim(self, name: str) -> None:
        self.api.delete(RESOURCE_CLAIMS, name, self.namespace)

    def wait_claim_free(self, name: str) -> None:
        """Until the claim, which its pods have left, is not allocated any more."""

        def look() -> None:
            claim = self.api.get(RESOURCE_CLAIMS, name, self.namespace)
            if (claim.get("status") or {}).get("allocation"):
                raise NotYet(f"claim {name} is still allocated, reserved for {claim['status'].get('reservedFor')}")

        eventually(look, GONE_SECONDS)

    def claims_of(self, pod: str) -> dict[str, Obj]:
        """The pod's claims by the entry in its spec; the scheduler's own for extended resources under ``""``."""
        names = expected.claim_names(self.api.get(PODS, pod, self.namespace))
        return {entry: self.api.get(RESOURCE_CLAIMS, name, self.namespace) for entry, name in names.items()}

    def devices_of(self, pod: str) -> list[expected.Result]:
        """All devices of all claims of a pod."""
        return [result for claim in self.claims_of(pod).values() for result in expected.results_of(claim)]

    def look(self, pod: str, container: str = "main") -> views.View:
        """A kubelet that has just started does not know its pods at once, and lets nobody in."""

        def look() -> views.View:
            try:
                return views.look(self.kubectl, self.namespace, pod, container)
            except KubectlError as error:
                raise NotYet(str(error)) from error

        return eventually(look, _EXEC_SECONDS)

    def check_containers(self, pod: str) -> dict[str, views.View]:
        """Each container must see exactly the GPUs and as many MIG devices as it claims. Returns what they see."""
        body = self.api.get(PODS, pod, self.namespace)
        claims = self.claims()
        found = {}
        for container in body["spec"]["containers"]:
            name = container["name"]
            found[name] = self.look(pod, name)
            devices = expected.devices_of_container(body, name, claims)
            check_view(found[name], expected.minors(devices), f"{pod}/{name}")
            capabilities = 2 * len([device for device in devices if device.is_mig])
            assert len(found[name].capabilities) == capabilities, f"{pod}/{name} sees {sorted(found[name].devices)}"
        return found

    def failed_prepares(self) -> list[str]:
        """What the kubelet said of prepares that failed.

        Not those that never got to the driver because the API server would not yet show the kubelet its pod's claim:
        its authorizer learns of pods by a watch (plugin/pkg/auth/authorizer/node), and the kubelet tries again.
        """
        events = self.api.list(EVENTS, self.namespace, field_selector="reason=FailedPrepareDynamicResources").items
        return [event["message"] for event in events if AUTHORIZER_LAGS not in event["message"]]

    def close(self) -> None:
        """Delete everything; returns when pods and claims are gone. The rest of the namespace goes by itself."""
        self.start_deleting(*self.pods(), grace=1)
        self.api.delete_collection(RESOURCE_CLAIM_TEMPLATES, self.namespace)
        eventually(self._check_no_pods, GONE_SECONDS)
        self.api.delete_collection(RESOURCE_CLAIMS, self.namespace)
        eventually(self._check_no_claims, GONE_SECONDS)
        self.api.delete(NAMESPACES, self.namespace)

    def _check_has(self, resource: Resource, name: str) -> None:
        try:
            self.api.get(resource, name, self.namespace)
        except NotFound:
            raise NotYet(f"namespace {self.namespace} has no {resource.kind} {name}") from None

    def _metadata(self, name: str) -> Obj:
        return {"name": name, "namespace": self.namespace}

    def _check_unplaced(self, name: str) -> None:
        node = self.api.get(PODS, name, self.namespace)["spec"].get("nodeName")
        assert not node, f"pod {name} was to stay Pending and was placed on {node}"

    def _check_no_pods(self) -> None:
        if left := self.pods():
            raise NotYet(f"pods of {self.namespace} are still there: {_states(left)}")

    def _check_no_claims(self) -> None:
        if left := self.claims():
            raise NotYet(f"claims of {self.namespace} are still there: {', '.join(left)}")


def unique_name(base: str) -> str:
    """A namespace that nobody has: a test's name, cut short, and something random."""
    cleaned = "".join(letter if letter.isalnum() else "-" for letter in base.lower()).strip("-")
    return f"e2e-{cleaned[:40].strip('-')}-{secrets.token_hex(3)}"


def check_view(view: views.View, wanted: set[int], where: str) -> None:
    """GPUs of ``wanted`` and no other; with one, the control node and no devices by the environment."""
    assert view.gpus == wanted, f"{where} sees GPUs {sorted(view.gpus)}, its claims have {sorted(wanted)}"
    if wanted:
        assert "nvidiactl" in view.devices, f"{where} has no /dev/nvidiactl"
        assert view.visible_devices == "void", f"{where}: NVIDIA_VISIBLE_DEVICES is {view.visible_devices!r}"


def is_ready(pod: Obj | None) -> bool:
    return pod is not None and status.is_ready(pod)


def state(pod: Obj | None) -> str:
    """``Pending on node-0, deleted 3 s ago: the reason it gives``."""
    if pod is None:
        return "not there"
    text = phase(pod)
    if node := pod["spec"].get("nodeName"):
        text += f" on {node}"
    if pod["metadata"].get("deletionTimestamp"):
        text += f", being deleted since {pod['metadata']['deletionTimestamp']}"
    message = waiting_message(pod)
    return f"{text}: {message}" if message else text


def container_ids(pod: Obj) -> dict[str, tuple[str, int]]:
    """Id and restart count of each container: the same again means that nobody touched it."""
    return {
        status["name"]: (status.get("containerID", ""), status["restartCount"])
        for status in pod["status"]["containerStatuses"]
    }


def _states(pods: Mapping[str, Obj]) -> str:
    return "; ".join(f"{name}: {state(pod)}" for name, pod in pods.items())


def now() -> str:
    """For ``--since-time``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def names(prefix: str, count: int) -> Sequence[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def halves(pods: Sequence[str]) -> list[Sequence[str]]:
    """The pods in batches, each half of what is left, for a test in which they have every share of something.

    kube-scheduler 1.37.2 counts a share twice between the informer's word of its claim and the end of its binding
    (pkg/scheduler/framework/plugins/dynamicresources/dra_manager.go, GatherAllocatedState). A pod that finds every
    share taken because of it goes elsewhere, or is next looked at after five minutes. In a batch of half of what is
    left, even all counted twice leave one.
    """
    batches: list[Sequence[str]] = []
    while pods:
        size = max(1, len(pods) // 2)
        batches.append(pods[:size])
        pods = pods[size:]
    return batches
