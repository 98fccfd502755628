"""Device sets of any size and kind, and a very small API server for slices."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from dra_driver.devices.model import (
    AllocatableDevice,
    Capacity,
    CounterConsumption,
    CounterSet,
    DeviceKind,
    DeviceSet,
    RequestPolicy,
    Taint,
)
from dra_driver.kube.interface import RESOURCE_SLICES
from dra_driver.quantity import Quantity
from dra_driver.simulation.validation import apply_defaults, unknown_fields, validate_create, validate_update
from dra_driver.slices.cutting import PoolOwner
from dra_driver.slices.diff import WritePlan
from dra_driver.slices.encode import Obj
from dra_driver.slices.features import ApiFeatures

OWNER = PoolOwner("gpu.nvidia.com", "node-0", "11111111-2222-3333-4444-555555555555")
NOW = "2026-11-23T08:03:30Z"
FEATURES = ApiFeatures()
OLD_FEATURES = ApiFeatures(combined_counters=True)


def whole(number: int, *taints: Taint) -> AllocatableDevice:
    return AllocatableDevice(
        name=f"gpu-{number}",
        kind=DeviceKind.GPU,
        gpu_uuid=f"GPU-{number}",
        attributes={"type": "gpu", "uuid": f"GPU-{number}", "resource.kubernetes.io/numaNode": number % 2},
        capacity={"memory": Capacity(Quantity.parse("80Gi"))},
        taints=taints,
    )


def taint(key: str = "gpu.nvidia.com/xid", value: str = "79", effect: str = "NoSchedule") -> Taint:
    return Taint(key, value, effect)


def shareable(number: int) -> AllocatableDevice:
    policy = RequestPolicy(*map(Quantity.parse, ("1Gi", "0", "80Gi", "1Gi")))
    return replace(
        whole(number),
        capacity={"memory": Capacity(Quantity.parse("80Gi"), policy)},
        allow_multiple_allocations=True,
    )


def counter_set(number: int, slices: int = 8) -> CounterSet:
    counters = {f"memory-slice-{index}": Quantity.of(1) for index in range(slices)}
    return CounterSet(f"gpu-{number}-counter-set", {"memory": Quantity.parse("80Gi"), **counters})


def partition(number: int, start: int) -> AllocatableDevice:
    counters = {"memory": Quantity.parse("10Gi"), f"memory-slice-{start}": Quantity.of(1)}
    return replace(
        whole(number),
        name=f"gpu-{number}-mig-1g10gb-19-{start}",
        kind=DeviceKind.MIG,
        consumes=(CounterConsumption(f"gpu-{number}-counter-set", counters),),
    )


def partitionable(number: int, partitions: int) -> list[AllocatableDevice]:
    """A GPU and its placements, drawing from one counter set."""
    own = counter_set(number)
    entire = replace(whole(number), consumes=(CounterConsumption(own.name, own.counters),))
    return [entire, *(partition(number, start) for start in range(partitions))]


def partitioned_set(gpus: int, partitions: int) -> DeviceSet:
    devices = [device for number in range(gpus) for device in partitionable(number, partitions)]
    return DeviceSet(tuple(devices), tuple(counter_set(number) for number in range(gpus)))


taints = st.lists(
    st.builds(
        taint, key=st.sampled_from(["gpu.nvidia.com/xid", "gpu.nvidia.com/gpu-lost"]), effect=st.just("NoSchedule")
    ),
    max_size=2,
    unique_by=lambda item: item.key,
).map(tuple)


@st.composite
def plain_sets(draw: st.DrawFn) -> DeviceSet:
    """Whole or shareable GPUs, some tainted; more than any node has."""
    numbers = draw(st.lists(st.integers(0, 400), max_size=150, unique=True))
    return DeviceSet(
        tuple(
            replace(draw(st.sampled_from([whole, shareable]))(number), taints=draw(taints))
            if number % 5 == 0
            else whole(number)
            for number in sorted(numbers)
        )
    )


device_sets = st.one_of(plain_sets(), st.builds(partitioned_set, st.integers(0, 10), st.integers(0, 63)))
api_features = st.builds(ApiFeatures, *(st.booleans() for _ in range(4)))


class SliceServer:
    """Applies write plans as the API server would: names, versions, defaults, canonical quantities, validation."""

    def __init__(self, existing: Iterable[Obj] = ()) -> None:
        self.slices: dict[str, Obj] = {item["metadata"]["name"]: copy.deepcopy(item) for item in existing}
        self._writes = 0
        self.checked = True

    def list(self) -> list[Obj]:
        return copy.deepcopy(list(self.slices.values()))

    def apply(self, plan: WritePlan) -> None:
        for delete in plan.deletes:
            metadata = self.slices[delete.name]["metadata"]
            assert (metadata["uid"], metadata["resourceVersion"]) == (delete.uid, delete.resource_version)
            del self.slices[delete.name]
        for item in plan.updates:
            old = self.slices[item["metadata"]["name"]]
            assert item["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]
            self._store(item, old)
        for item in plan.creates:
            self._store(item, None)

    def _store(self, item: Obj, old: Obj | None) -> None:
        item = copy.deepcopy(item)
        self._writes += 1
        apply_defaults(RESOURCE_SLICES, item, now=NOW)
        metadata = item["metadata"]
        metadata.setdefault("name", f"{metadata['generateName']}{self._writes:05x}")
        metadata.setdefault("uid", f"uid-{self._writes}")
        metadata["resourceVersion"] = str(self._writes)
        if self.checked:
            causes = validate_update(RESOURCE_SLICES, item, old) if old else validate_create(RESOURCE_SLICES, item)
            assert causes == []
            assert unknown_fields(RESOURCE_SLICES, item) == []
        item["spec"].setdefault("devices", None)  # the server's field is not left out when it is empty
        self.slices[metadata["name"]] = item
