"""Small API objects for allocator and scheduler tests: slices with GPUs, classes, claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from dra_driver.allocator.model import AttributeValue, Device, DeviceId, NodeScope, Obj, Version
from dra_driver.quantity import Quantity

DRIVER = "gpu.nvidia.com"
GPU_CLASS_EXPRESSION = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'"


def gpu(index: int, **changes: Any) -> Obj:
    """A whole GPU as the driver publishes it; two neighbours share a PCIe root."""
    device: Obj = {
        "name": f"gpu-{index}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{index}"},
            "productName": {"string": "NVIDIA A100-SXM4-40GB"},
            "driverVersion": {"version": "580.105.8"},
            "resource.kubernetes.io/pcieRoot": {"string": f"pci0000:{index // 2:02d}"},
        },
        "capacity": {"memory": {"value": "40Gi"}},
    }
    return {**device, **changes}


def shared_gpu(index: int, shares: int = 4) -> Obj:
    """A GPU that is given in ``shares``, one per request; none of them takes any memory from the others."""
    capacity = {
        "memory": {"value": "40Gi", "requestPolicy": {"default": "0"}},
        "shares": {"value": str(shares), "requestPolicy": {"default": "1", "validValues": ["1"]}},
    }
    return gpu(index, capacity=capacity, allowMultipleAllocations=True)


def resource_slice(
    node: str,
    devices: Sequence[Obj],
    *,
    name: str = "",
    pool: str = "",
    generation: int = 1,
    count: int = 1,
    **spec: Any,
) -> Obj:
    body: Obj = {
        "driver": DRIVER,
        "pool": {"name": pool or node, "generation": generation, "resourceSliceCount": count},
        "devices": list(devices),
    }
    if not spec:
        body["nodeName"] = node
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name or f"00000-{node}"},
        "spec": {**body, **spec},
    }


def device_class(name: str = DRIVER, *expressions: str, **spec: Any) -> Obj:
    selectors = [{"cel": {"expression": text}} for text in (expressions or (GPU_CLASS_EXPRESSION,))]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"selectors": selectors, **spec},
    }


def request(name: str = "gpu", *expressions: str, class_name: str = DRIVER, **fields: Any) -> Obj:
    return {"name": name, "exactly": alternative("", *expressions, class_name=class_name, **fields)}


def alternative(name: str, *expressions: str, class_name: str = DRIVER, **fields: Any) -> Obj:
    body: Obj = {"deviceClassName": class_name, **fields}
    if name:
        body["name"] = name
    if expressions:
        body["selectors"] = [{"cel": {"expression": text}} for text in expressions]
    return body


def claim(name: str, *requests: Obj, namespace: str = "demo", **devices: Any) -> Obj:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"},
        "spec": {"devices": {"requests": list(requests), **devices}},
    }


def allocated(claim_object: Obj, *devices: tuple[str, str], admin: bool = False) -> Obj:
    """The claim as if it held these (pool, device) pairs."""
    results = [
        {"request": "gpu", "driver": DRIVER, "pool": pool, "device": device, **({"adminAccess": True} if admin else {})}
        for pool, device in devices
    ]
    return {**claim_object, "status": {"allocation": {"devices": {"results": results}}}}


def share_ids() -> Callable[[], str]:
    """Makes the UUIDs of shares: 0, 1, 2 ... in their last digits."""
    numbers = count()
    return lambda: f"00000000-0000-4000-8000-{next(numbers):012}"


def cel_device(
    attributes: dict[str, dict[str, AttributeValue]] | None = None,
    capacity: dict[str, dict[str, str]] | None = None,
    *,
    driver: str = DRIVER,
    allow_multiple: bool = False,
) -> Device:
    return Device(
        id=DeviceId(driver, "pool", "device"),
        attributes=attributes or {},
        capacity={
            domain: {name: Quantity.parse(value) for name, value in values.items()}
            for domain, values in (capacity or {}).items()
        },
        scope=NodeScope("node"),
        allow_multiple_allocations=allow_multiple,
    )


A100 = cel_device(
    {
        DRIVER: {
            "type": "gpu",
            "productName": "NVIDIA A100-SXM4-40GB",
            "driverVersion": Version("580.105.8"),
            "cudaComputeCapability": Version("8.0.0"),
            "index": 1,
            "healthy": True,
            "links": ("a", "b"),
        },
        "resource.kubernetes.io": {"pcieRoot": "pci0000:00", "numaNode": 0},
    },
    {DRIVER: {"memory": "40Gi", "cores": "1500m"}},
)
