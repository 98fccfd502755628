"""The columns of ``gpu-dra get``. Pure: raw objects in, text cells out; a missing value is a dash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dra_driver.cli.demo_rows import allocated_devices, claim_names
from dra_driver.cli.expectations import phase, waiting_message
from dra_driver.kube.interface import Obj
from dra_driver.slices.decode import generation_of, pool_of


@dataclass(frozen=True, slots=True)
class Column:
    """``wide`` columns are shown with ``-o wide`` only."""

    heading: str
    cell: Callable[[Obj], object]
    wide: bool = False


def rows(columns: Sequence[Column], objects: Sequence[Obj]) -> list[tuple[str, ...]]:
    ordered = sorted(objects, key=lambda obj: (obj["metadata"].get("namespace") or "", obj["metadata"]["name"]))
    return [tuple(_text(column.cell(obj)) for column in columns) for obj in ordered]


def _text(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _name(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def _namespace(obj: Obj) -> object:
    return obj["metadata"].get("namespace")


def _status(obj: Obj) -> Obj:
    return obj.get("status") or {}


def _pool(resource_slice: Obj) -> str:
    count = resource_slice["spec"]["pool"]["resourceSliceCount"]
    return f"{pool_of(resource_slice)} (generation {generation_of(resource_slice)}, {count} slices)"


def _device_names(resource_slice: Obj) -> str:
    return " ".join(device["name"] for device in resource_slice["spec"].get("devices") or ())


def _products(resource_slice: Obj) -> str:
    names = dict.fromkeys(
        (device.get("attributes") or {}).get("productName", {}).get("string", "")
        for device in resource_slice["spec"].get("devices") or ()
    )
    return ", ".join(name for name in names if name)


def _taints(resource_slice: Obj) -> int:
    return sum(len(device.get("taints") or ()) for device in resource_slice["spec"].get("devices") or ())


def _claim_state(claim: Obj) -> str:
    if claim["metadata"].get("deletionTimestamp"):
        return "deleting"
    if not _status(claim).get("allocation"):
        return "pending"
    return "allocated,reserved" if _status(claim).get("reservedFor") else "allocated"


def _consumers(claim: Obj) -> str:
    return " ".join(entry["name"] for entry in _status(claim).get("reservedFor") or ())


def _conditions(obj: Obj) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in _status(obj).get("conditions") or ()}


def _ready(node: Obj) -> str:
    return "Ready" if _conditions(node).get("Ready") == "True" else "NotReady"


def _machine(inventory: Obj) -> Obj:
    return _status(inventory).get("machine") or {}


def _inventory_products(inventory: Obj) -> str:
    return ", ".join(product["name"] for product in _machine(inventory).get("products") or ())


def _driver_version(inventory: Obj) -> str | None:
    return _machine(inventory).get("driverVersion")


def _registered(inventory: Obj) -> bool:
    return bool((_status(inventory).get("registration") or {}).get("registered"))


def _about(event: Obj) -> str:
    involved = event.get("involvedObject") or {}
    return f"{involved.get('kind', '')}/{involved.get('name', '')}"


_NAMESPACE = Column("NAMESPACE", _namespace)
_NAME = Column("NAME", _name)
_CREATED = Column("CREATED", lambda obj: obj["metadata"].get("creationTimestamp"), wide=True)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "slices": (
        _NAME,
        Column("NODE", lambda obj: obj["spec"].get("nodeName")),
        Column("DRIVER", lambda obj: obj["spec"]["driver"]),
        Column("POOL", _pool),
        Column("DEVICES", lambda obj: len(obj["spec"].get("devices") or ())),
        Column("TAINTS", _taints),
        Column("PRODUCTS", _products, wide=True),
        Column("NAMES", _device_names, wide=True),
    ),
    "claims": (
        _NAMESPACE,
        _NAME,
        Column("STATE", _claim_state),
        Column("DEVICES", lambda claim: " ".join(allocated_devices(claim))),
        Column("RESERVED FOR", _consumers),
        Column("UID", lambda obj: obj["metadata"].get("uid"), wide=True),
        _CREATED,
    ),
    "pods": (
        _NAMESPACE,
        _NAME,
        Column("PHASE", phase),
        Column("NODE", lambda pod: pod["spec"].get("nodeName")),
        Column("CLAIMS", lambda pod: " ".join(claim_names(pod))),
        _CREATED,
        Column("WAITS FOR", waiting_message, wide=True),
    ),
    "nodes": (_NAME, Column("STATUS", _ready), _CREATED),
    "inventories": (
        _NAME,
        Column("GPUS", lambda obj: len(_machine(obj).get("gpus") or ())),
        Column("PRODUCTS", _inventory_products),
        Column("DRIVER", _driver_version),
        Column("REGISTERED", _registered),
        Column("PLUGIN", lambda obj: (_status(obj).get("registration") or {}).get("pluginVersion"), wide=True),
        Column("UNHEALTHY", lambda obj: len(_status(obj).get("health") or ()), wide=True),
    ),
    "events": (
        _NAMESPACE,
        Column("LAST SEEN", lambda event: event.get("lastTimestamp")),
        Column("TYPE", lambda event: event.get("type")),
        Column("REASON", lambda event: event.get("reason")),
        Column("OBJECT", _about),
        Column("COUNT", lambda event: event.get("count"), wide=True),
        Column("MESSAGE", lambda event: event.get("message")),
    ),
}
