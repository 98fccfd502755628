"""``status.devices`` of claims with fractions: written beside what others write, kept true, and never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.fractions import SharingBackend
from dra_driver.kube.interface import (
    NAMESPACES,
    RESOURCE_CLAIMS,
    ApiError,
    Forbidden,
    Obj,
    PatchType,
    Unavailable,
)
from dra_driver.simulation.store import EmbeddedApi
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice
from kubelet_plugin.claims.model import ClaimRef, Operation, PreparedDevice
from kubelet_plugin.kinds.fence.metrics import FenceCollector
from kubelet_plugin.kinds.fence.status import status_devices
from kubelet_plugin.kinds.fence.step import FenceShare
from kubelet_plugin.kinds.fence.telling import FenceStatuses
from kubelet_plugin.telling.failures import FailureEvent
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.kinds.fence.claims import SHARES
from tests.kubelet_plugin.prepare.node import BOOT, DRIVER, NODE

GIB = 2**30


class World:
    """An API server with an allocated claim, and a checkpoint that says how it was prepared."""

    def __init__(self) -> None:
        self.api = EmbeddedApi()
        self.api.create(NAMESPACES, {"metadata": {"name": "team"}})
        self.entries: dict[str, ClaimEntry] = {}
        self.gone = ""
        self.events: list[tuple[ClaimRef, FailureEvent]] = []
        self.time = "2026-11-30T10:00:00Z"
        self.error: ApiError | None = None
        self.patches = 0

    def claim(self, name: str, *fences: FenceShare) -> ClaimRef:
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
        made = self.api.create(
            RESOURCE_CLAIMS,
            {"metadata": {"name": name, "namespace": "team"}, "spec": {"devices": {"requests": [request]}}},
        )
        results = [
            {
                "request": "gpu",
                "driver": DRIVER,
                "pool": NODE,
                "device": fence.device,
                "shareID": fence.share_id,
                "consumedCapacity": {"memory": "10Gi"},
            }
            for fence in fences
        ]
        made["status"] = {"allocation": {"devices": {"results": results}}}
        self.api.update(RESOURCE_CLAIMS, made, subresource="status")
        ref = ClaimRef("team", name, made["metadata"]["uid"])
        devices = tuple(
            HeldDevice(PreparedDevice(("gpu",), NODE, fence.device, ("cdi",), share_id=fence.share_id), fence.gpu_uuid)
            for fence in fences
        )
        steps = tuple(fence.record() for fence in fences)
        self.entries[ref.uid] = ClaimEntry(ref, ClaimState.COMPLETED, BOOT, devices, steps)
        return ref

    def get(self, *arguments: Any, **more: Any) -> Obj:
        return self.api.get(*arguments, **more)

    def patch(self, *arguments: Any, **more: Any) -> Obj:
        self.patches += 1
        if self.error is not None:
            raise self.error
        return self.api.patch(*arguments, **more)

    def tell(self, claim: ClaimRef, event: FailureEvent) -> None:
        self.events.append((claim, event))

    def told(self, name: str) -> list[Obj]:
        status = self.api.get(RESOURCE_CLAIMS, name, "team").get("status") or {}
        devices: list[Obj] = status.get("devices") or []
        return devices

    def condition(self, name: str) -> Obj:
        found: Obj = self.told(name)[0]["conditions"][0]
        return found

    @contextmanager
    def running(self) -> Iterator[FenceStatuses]:
        statuses = FenceStatuses(
            self,  # type: ignore[arg-type]
            DRIVER,
            BOOT,
            lambda: self.entries,
            lambda _device, _entry: self.gone,
            self,
            now=lambda: self.time,
        )
        statuses.start()
        try:
            yield statuses
        finally:
            statuses.stop()


def fence(number: int = 0, backend: SharingBackend = SharingBackend.MPS, **more: Any) -> FenceShare:
    made = FenceShare("uid", "gpu-0", SHARES[number], "GPU-0", "GPU-0", backend, 10 * GIB, 10 * GIB, 25)
    return replace(made, **more)


@pytest.fixture
def world() -> World:
    return World()


def test_backend_bytes_and_percent_stand_in_the_claim(world: World) -> None:
    world.claim("c", fence())
    with world.running():
        eventually(lambda: world.told("c"))
    (device,) = world.told("c")
    assert (device["driver"], device["pool"], device["device"], device["shareID"]) == (DRIVER, NODE, "gpu-0", SHARES[0])
    assert device["data"] == {
        "backend": "Mps",
        "enforcement": "Cooperative",
        "memoryBytes": 10 * GIB,
        "computePercent": 25,
    }
    assert world.condition("c") == {
        "type": "Enforced",
        "status": "True",
        "reason": "ByMps",
        "message": "10240Mi of memory, 25 percent of the multiprocessors",
        "lastTransitionTime": "2026-11-30T10:00:00Z",
    }


def test_shares_of_one_device_are_told_apart(world: World) -> None:
    world.claim("c", fence(0), fence(1, memory=5 * GIB, memory_limit=20 * GIB, compute=0))
    with world.running():
        eventually(lambda: len(world.told("c")) == 2)
    first, second = world.told("c")
    assert (first["shareID"], second["shareID"]) == (SHARES[0], SHARES[1])
    assert second["data"]["memoryLimitBytes"] == 20 * GIB
    assert "up to 20480Mi while others leave it, no ceiling of compute" in second["conditions"][0]["message"]


def test_what_nothing_fences_is_said_to_be_so(world: World) -> None:
    world.claim("c", fence(backend=SharingBackend.NONE))
    with world.running():
        eventually(lambda: world.told("c"))
    assert (world.condition("c")["status"], world.condition("c")["reason"]) == ("False", "NotFenced")


def test_each_share_is_a_series_of_metrics_for_as_long_as_its_claim_is_prepared(world: World) -> None:
    ref = world.claim("c", fence(0), fence(1, memory=5 * GIB, memory_limit=20 * GIB, compute=0))
    registry = CollectorRegistry()
    with world.running() as statuses:
        registry.register(FenceCollector(lambda: statuses.found))
        eventually(lambda: len(world.told("c")) == 2)
        names = {"device": "gpu-0", "gpu": "GPU-0", "namespace": "team", "claim": "c", "backend": "Mps"}
        first, second = ({**names, "share_id": share} for share in SHARES[:2])
        assert registry.get_sample_value("gpu_dra_fraction_memory_bytes", first) == 10 * GIB
        assert registry.get_sample_value("gpu_dra_fraction_memory_limit_bytes", second) == 20 * GIB
        assert registry.get_sample_value("gpu_dra_fraction_compute_percent", first) == 25
        assert registry.get_sample_value("gpu_dra_fraction_compute_percent", second) == 0
        assert registry.get_sample_value("gpu_dra_fraction_enforced", first) == 1
        world.gone = "the MPS daemon of group g is dead"
        statuses.look_again()
        eventually(lambda: registry.get_sample_value("gpu_dra_fraction_enforced", first) == 0)
        del world.entries[ref.uid]
        statuses.look_again()
        eventually(lambda: registry.get_sample_value("gpu_dra_fraction_enforced", first) is None)


def test_what_others_write_stays(world: World) -> None:
    ref = world.claim("c", fence())
    condition = {"type": "Ready", "status": "True", "reason": "Yes", "lastTransitionTime": "2026-11-30T09:00:00Z"}
    entry = {"driver": DRIVER, "pool": NODE, "device": "gpu-0", "shareID": SHARES[0], "conditions": [condition]}
    world.api.patch(
        RESOURCE_CLAIMS,
        ref.name,
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": ref.name, "namespace": "team"},
            "status": {"devices": [entry]},
        },
        "team",
        patch_type=PatchType.APPLY,
        subresource="status",
        field_manager="somebody",
    )
    with world.running():
        eventually(lambda: "data" in world.told("c")[0])
    assert {each["type"] for each in world.told("c")[0]["conditions"]} == {"Ready", "Enforced"}


def test_nothing_is_written_twice_also_over_a_restart(world: World) -> None:
    world.claim("c", fence())
    with world.running() as statuses:
        eventually(lambda: world.told("c"))
        before = world.patches
        statuses.finished(Operation.PREPARE, 0.1, ())
        world.claim("d", fence(1))
        statuses.finished(Operation.PREPARE, 0.1, ())
        eventually(lambda: world.told("d"))
        assert world.patches == before + 1
    version = world.api.get(RESOURCE_CLAIMS, "c", "team")["metadata"]["resourceVersion"]
    world.time = "2026-11-30T11:00:00Z"
    again = world.patches
    with world.running():
        eventually(lambda: world.patches == again + 2)
    assert world.api.get(RESOURCE_CLAIMS, "c", "team")["metadata"]["resourceVersion"] == version


def test_a_fence_that_has_gone_is_told_once_and_so_is_its_return(world: World) -> None:
    ref = world.claim("c", fence())
    with world.running() as statuses:
        eventually(lambda: world.told("c"))
        world.gone, world.time = "the MPS daemon of group g is dead", "2026-11-30T10:05:00Z"
        statuses.look_again()
        eventually(lambda: world.condition("c")["status"] == "False")
        assert world.condition("c")["lastTransitionTime"] == "2026-11-30T10:05:00Z"
        statuses.look_again()
        world.gone = ""
        statuses.look_again()
        eventually(lambda: world.condition("c")["status"] == "True")
    ((claim, event),) = world.events
    assert (claim, event.reason) == (ref, "FenceGone")
    assert "nothing holds the share of gpu-0 to its limits any more: the MPS daemon of group g is dead" in event.message


def test_a_claim_that_cannot_be_written_holds_up_no_other(world: World) -> None:
    world.claim("c", fence())
    world.error = Unavailable("the API server is away")
    with world.running() as statuses:
        eventually(lambda: world.patches >= 1)
        world.error = None
        world.claim("d", fence(1))
        statuses.look_again()
        eventually(lambda: world.told("c") and world.told("d"))


def test_without_the_right_it_is_said_once_and_nothing_else_happens(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.claim("c", fence())
    world.error = Forbidden("may not patch")
    with world.running() as statuses:
        eventually(lambda: world.patches >= 1)
        world.claim("d", fence(1))
        statuses.look_again()
        eventually(lambda: world.patches >= 2)
    said = [record for record in caplog.records if "is not told in claims" in record.message]
    assert len(said) == 1
    assert "associated-node:patch" in said[0].message


def test_claims_that_are_gone_or_are_others_now_are_left_alone(world: World) -> None:
    ref = world.claim("c", fence())
    world.api.delete(RESOURCE_CLAIMS, "c", "team")
    other = world.claim("d", fence(1))
    world.entries[ref.uid] = replace(world.entries[ref.uid], ref=ClaimRef("team", "d", ref.uid))
    del world.entries[other.uid]
    world.claim("last", fence(2))
    with world.running():
        eventually(lambda: world.told("last"))
    assert world.told("d") == []


def test_the_time_of_a_condition_is_that_of_its_last_change() -> None:
    assert status_devices((), DRIVER, [], "now") == []
