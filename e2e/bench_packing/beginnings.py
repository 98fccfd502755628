"""The claims that are there when a run begins: made by hand, as nobody wants to wait until thousands are scheduled.

They are allocated as the scheduler would have done it, and held by one pod that is never scheduled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, KubeApi, NotFound, Obj
from e2e.bench_packing.room import Place
from e2e.kit.expected import DRIVER
from e2e.kit.workloads import MIG_CLASS, claim_spec, exactly, pod

NAMESPACE = "bench-packing"
_AT_ONCE = 8
_HOLDER = "holder"


@dataclass(slots=True)
class Beginnings:
    """``held``: the claims that there are, by name."""

    api: KubeApi
    held: set[str] = field(default_factory=set)
    _holder: Obj = field(default_factory=dict)

    def open(self) -> None:
        holder = pod(_HOLDER)
        holder["metadata"]["namespace"] = NAMESPACE
        holder["spec"]["schedulingGates"] = [{"name": "bench.gpu-dra.dev/never"}]
        uid = self.api.create(PODS, holder)["metadata"]["uid"]
        self._holder = {"resource": "pods", "name": _HOLDER, "uid": uid}

    def restore(self, places: Sequence[Place]) -> None:
        """Exactly one claim for each of ``places``, whatever there was before."""
        wanted = {name_of(place): place for place in places}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self.end, self.held - wanted.keys()))
            list(pool.map(self._make, [place for name, place in wanted.items() if name not in self.held]))

    def end(self, name: str) -> None:
        """As the resourceclaim controller does it when a claim's pod is gone."""
        self.held.discard(name)
        status = {"status": {"allocation": None, "reservedFor": None}}
        with contextlib.suppress(NotFound):
            self.api.patch(RESOURCE_CLAIMS, name, status, NAMESPACE, subresource="status")
            self.api.delete(RESOURCE_CLAIMS, name, NAMESPACE)

    def _make(self, place: Place) -> None:
        node, device = place
        name = name_of(place)
        metadata = {"name": name, "namespace": NAMESPACE}
        claim = {"metadata": metadata, "spec": claim_spec(exactly(device_class=MIG_CLASS))}
        created = self.api.create(RESOURCE_CLAIMS, claim)
        result = {"request": "gpu", "driver": DRIVER, "pool": node, "device": device}
        created["status"] = {"allocation": {"devices": {"results": [result]}}, "reservedFor": [self._holder]}
        self.api.update(RESOURCE_CLAIMS, created, subresource="status")
        self.held.add(name)


def name_of(place: Place) -> str:
    return "-".join(place)
