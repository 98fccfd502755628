"""How long pods take to become Ready, as a client sees it: from its create request to the watch event."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api.claim_config import SharingStrategy
from dra_driver.kube.interface import (
    EVENTS,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    EventType,
    KubeApi,
    Obj,
)
from e2e.clusters.interface import Cluster
from e2e.kit.recording import following
from e2e.kit.space import AUTHORIZER_LAGS, is_ready
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, claim_spec, pod, shared

NAMESPACE = "bench"
_TEMPLATE, SLICED, BY_MPS = "one", "sliced", "by-mps"
_TEMPLATES = {
    _TEMPLATE: claim_spec(),
    SLICED: claim_spec(config=[shared(SharingStrategy.TIME_SLICING, {"interval": "Long"})]),
    BY_MPS: claim_spec(config=[shared(SharingStrategy.MPS, {"defaultActiveThreadPercentage": 50})]),
}
_PATIENCE = 60.0
_PAUSE = 0.3
_CDI = Path("/var/run/cdi")


@dataclass
class PodWatch:
    """The moment (monotonic, seconds) at which each pod of the namespace was first seen Ready, and gone."""

    ready: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def see(self, kind: EventType, obj: Obj) -> None:
        now = time.monotonic()
        name = obj["metadata"]["name"]
        with self.changed:
            if kind is EventType.DELETED:
                self.gone[name] = now
            elif is_ready(obj):
                self.ready.setdefault(name, now)
            self.changed.notify_all()

    def wait(self, names: Sequence[str], seen: Mapping[str, float]) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: all(name in seen for name in names), _PATIENCE):
                missing = [name for name in names if name not in seen]
                raise TimeoutError(f"after {_PATIENCE:.0f} s: {', '.join(missing)} not seen")


@dataclass(slots=True)
class Burst:
    """Seconds until the first and until the last pod of each round was Ready. ``refused`` counts rounds in which a pod
    waited because the API server's authorizer did not know it yet, which is no doing of the driver."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    refused: int = 0

    def add(self, seconds: Sequence[float], refused: bool) -> None:
        self.first.append(min(seconds))
        self.last.append(max(seconds))
        self.refused += refused


@dataclass(frozen=True, slots=True)
class PodBench:
    """Creates and deletes pods in the namespace ``bench``, which it makes."""

    api: KubeApi
    cluster: Cluster
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def prepare(self) -> None:
        self.api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        for name, spec in _TEMPLATES.items():
            template = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"spec": spec}}
            self.api.create(RESOURCE_CLAIM_TEMPLATES, template)

    def pairs(self, count: int) -> tuple[list[float], list[float], list[float]]:
        """Seconds to Ready without and with a claim, in turns, and seconds from delete to claim and CDI file gone."""
        without, having, gone = [], [], []
        with self._watching() as watch:
            for _ in range(count):
                (name,), (seconds,) = self._ready(watch, 1, None)
                without.append(seconds)
                self._delete(watch, [name])
                (name,), (seconds,) = self._ready(watch, 1, _TEMPLATE)
                having.append(seconds)
                began = time.monotonic()
                self._delete(watch, [name])
                eventually(self._check_nothing_left, _PATIENCE, poll=0.02)
                gone.append(time.monotonic() - began)
                time.sleep(_PAUSE)
        return without, having, gone

    def last_ready(self, rounds: int, pods: int, template: str) -> list[float]:
        """Seconds until the last of ``pods`` pods with that template, created at once, was Ready."""
        found = []
        with self._watching() as watch:
            for _ in range(rounds):
                names, seconds = self._ready(watch, pods, template)
                found.append(max(seconds))
                self._delete(watch, names)
                eventually(self._check_nothing_left, _PATIENCE)
                time.sleep(_PAUSE)
        return found

    def bursts(self, rounds: int, pods: int) -> tuple[Burst, Burst]:
        """``pods`` pods created at once, without and with claims in turns."""
        without, having = Burst(), Burst()
        with self._watching() as watch:
            for _ in range(rounds):
                for burst, template in ((without, None), (having, _TEMPLATE)):
                    names, seconds = self._ready(watch, pods, template)
                    burst.add(seconds, self._refused(names))
                    self._delete(watch, names)
                    eventually(self._check_nothing_left, _PATIENCE)
                    time.sleep(_PAUSE)
        return without, having

    def failures(self) -> dict[str, str]:
        """By the names of all pods so far that waited since a prepare failed at first, what was said of it."""
        events = self.api.list(EVENTS, NAMESPACE, field_selector="reason=FailedPrepareDynamicResources").items
        return {event["involvedObject"]["name"]: event["message"] for event in events}

    def _refused(self, names: Collection[str]) -> bool:
        """Whether the API server would not show the kubelet one of these pods' claims at first (AUTHORIZER_LAGS)."""
        return any(name in names and AUTHORIZER_LAGS in message for name, message in self.failures().items())

    def _ready(self, watch: PodWatch, count: int, template: str | None) -> tuple[list[str], list[float]]:
        names = [f"p{next(self.numbers)}" for _ in range(count)]
        began = time.monotonic()
        for name in names:
            obj = pod(name, Use(template=template)) if template else pod(name)
            obj["metadata"]["namespace"] = NAMESPACE
            self.api.create(PODS, obj)
        watch.wait(names, watch.ready)
        return names, [watch.ready[name] - began for name in names]

    def _delete(self, watch: PodWatch, names: Sequence[str]) -> None:
        for name in names:
            self.api.delete(PODS, name, NAMESPACE)
        watch.wait(names, watch.gone)

    def _check_nothing_left(self) -> None:
        if claims := self.api.list(RESOURCE_CLAIMS, NAMESPACE).items:
            raise NotYet(f"{len(claims)} claims are left")
        for node in self.cluster.nodes:
            if files := self.cluster.run_on_node(node, ["ls", str(_CDI)]).split():
                raise NotYet(f"CDI files are left: {' '.join(files)}")

    @contextmanager
    def _watching(self) -> Iterator[PodWatch]:
        found = PodWatch()
        with following(self.api, PODS, lambda event: found.see(event.type, event.object), NAMESPACE):
            yield found
