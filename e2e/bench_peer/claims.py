"""Claims with an allocation as the scheduler writes it, written once through the API server.

Both drivers fetch the claim at each prepare; where its allocation came from they cannot tell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from api.claim_config import SharingStrategy
from api.kubelet import dra_v1_pb2
from dra_driver.kube.interface import RESOURCE_CLAIMS, KubeApi, Obj
from e2e.bench.pods import NAMESPACE
from e2e.kit.expected import DRIVER
from e2e.kit.workloads import GPU_CLASS, MIG_CLASS, claim_spec, exactly, shared

_REQUEST = "gpu"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A claim for one device: ``result`` is what its allocation says besides, ``config`` the claim's own."""

    device: str
    device_class: str = GPU_CLASS
    capacity: str = ""
    config: tuple[Obj, ...] = ()


def gpu(minor: int) -> Wanted:
    return Wanted(f"gpu-{minor}")


def mig(minor: int) -> Wanted:
    """The first 1g.10gb of a GPU."""
    return Wanted(f"gpu-{minor}-mig-1g10gb-19-0", MIG_CLASS)


def sliced(minor: int) -> Wanted:
    return Wanted(f"gpu-{minor}", config=(shared(SharingStrategy.TIME_SLICING, {"interval": "Long"}),))


def by_mps(minor: int) -> Wanted:
    return Wanted(f"gpu-{minor}", config=(shared(SharingStrategy.MPS, {"defaultActiveThreadPercentage": 50}),))


def share(minor: int) -> Wanted:
    return Wanted(f"gpu-{minor}", capacity="10Gi")


def spec(wanted: Wanted) -> Obj:
    request = exactly(_REQUEST, device_class=wanted.device_class)
    if wanted.capacity:
        request["exactly"]["capacity"] = {"requests": {"memory": wanted.capacity}}
    return claim_spec(request, config=wanted.config)


def allocation(wanted: Wanted, node: str, share_id: str) -> Obj:
    """``share_id``: of a share, where it is one."""
    result: Obj = {"request": _REQUEST, "driver": DRIVER, "pool": node, "device": wanted.device}
    if wanted.capacity:
        result |= {"shareID": share_id, "consumedCapacity": {"memory": wanted.capacity}}
    devices: Obj = {"results": [result]}
    if wanted.config:
        devices["config"] = [{"source": "FromClaim", **entry} for entry in wanted.config]
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"devices": devices, "nodeSelector": {"nodeSelectorTerms": [term]}}


@dataclass(frozen=True, slots=True)
class Claims:
    """Makes claims for devices of ``node``, and takes them away again."""

    api: KubeApi
    node: str
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @contextmanager
    def allocated(self, wanted: Sequence[Wanted]) -> Iterator[list[dra_v1_pb2.Claim]]:
        made: list[dra_v1_pb2.Claim] = []
        try:
            made.extend(map(self._make, wanted))
            yield made
        finally:
            for claim in made:
                self.api.delete(RESOURCE_CLAIMS, claim.name, NAMESPACE)

    def _make(self, wanted: Wanted) -> dra_v1_pb2.Claim:
        name = f"claim-{next(self._numbers)}"
        claim = self.api.create(
            RESOURCE_CLAIMS, {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec(wanted)}
        )
        claim["status"] = {"allocation": allocation(wanted, self.node, str(uuid4()))}
        claim = self.api.update(RESOURCE_CLAIMS, claim, subresource="status")
        return dra_v1_pb2.Claim(namespace=NAMESPACE, name=name, uid=claim["metadata"]["uid"])
