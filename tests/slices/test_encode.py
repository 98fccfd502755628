"""The API form of slices."""

from __future__ import annotations

from dataclasses import replace

from dra_driver.devices.model import Taint, Version
from dra_driver.slices.cutting import SliceSpec
from dra_driver.slices.encode import encode_device, encode_slice
from tests.slices.builders import OWNER, counter_set, partition, shareable, whole


def test_a_slice_of_devices() -> None:
    device = replace(
        whole(0, Taint("k", "", "None", "2026-11-23T08:03:30Z"), Taint("k2", "v", "NoSchedule")),
        attributes={"type": "gpu", "driverVersion": Version("580.105.8"), "index": 1, "flag": True},
    )
    assert encode_slice(SliceSpec(10, (device,)), OWNER, generation=3, count=11) == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {
            "generateName": "0000a-gpu.nvidia.com-node-0-",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "node-0", "uid": OWNER.node_uid, "controller": True}
            ],
        },
        "spec": {
            "driver": "gpu.nvidia.com",
            "pool": {"name": "node-0", "generation": 3, "resourceSliceCount": 11},
            "nodeName": "node-0",
            "devices": [
                {
                    "name": "gpu-0",
                    "attributes": {
                        "driverVersion": {"version": "580.105.8"},
                        "flag": {"bool": True},
                        "index": {"int": 1},
                        "type": {"string": "gpu"},
                    },
                    "capacity": {"memory": {"value": "80Gi"}},
                    "taints": [
                        {"key": "k", "effect": "None", "timeAdded": "2026-11-23T08:03:30Z"},
                        {"key": "k2", "effect": "NoSchedule", "value": "v"},
                    ],
                }
            ],
        },
    }


def test_counters_and_their_consumption() -> None:
    spec = encode_slice(SliceSpec(0, (), (counter_set(0, 1),)), OWNER, generation=1, count=1)["spec"]
    assert spec["sharedCounters"] == [
        {"name": "gpu-0-counter-set", "counters": {"memory": {"value": "80Gi"}, "memory-slice-0": {"value": "1"}}}
    ]
    assert encode_device(partition(0, 2))["consumesCounters"] == [
        {"counterSet": "gpu-0-counter-set", "counters": {"memory": {"value": "10Gi"}, "memory-slice-2": {"value": "1"}}}
    ]


def test_a_shareable_device() -> None:
    encoded = encode_device(shareable(0))
    assert encoded["allowMultipleAllocations"] is True
    assert encoded["capacity"]["memory"] == {
        "value": "80Gi",
        "requestPolicy": {"default": "1Gi", "validRange": {"min": "0", "max": "80Gi", "step": "1Gi"}},
    }


def test_empty_parts_are_left_out() -> None:
    assert encode_device(replace(whole(0), attributes={}, capacity={})) == {"name": "gpu-0"}
