"""Objects that a server refuses, or takes, one fault each; ``test_kube_api_validation`` says what is expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dra_driver.kube.interface import Obj

Change = Callable[[Obj], Any]


def device(name: str = "gpu-0", **fields: Any) -> Obj:
    return {"name": name, **fields}


def devices(*items: Obj) -> Change:
    def change(obj: Obj) -> None:
        obj["spec"]["devices"] = list(items)

    return change


def one(**fields: Any) -> Change:
    """A slice with one device that has these fields."""
    return devices(device(**fields))


def counters(**values: str) -> Obj:
    return {name.replace("_", "-"): {"value": value} for name, value in values.items()}


def spec(**fields: Any) -> Change:
    return lambda obj: obj["spec"].update(fields)


def without(*names: str) -> Change:
    return lambda obj: [obj["spec"].pop(name) for name in names]


def both(*changes: Change) -> Change:
    return lambda obj: [change(obj) for change in changes]


def capacity(**policy: Any) -> Change:
    return one(allowMultipleAllocations=True, capacity={"memory": {"value": "80Gi", "requestPolicy": policy}})


def requests(*items: Obj) -> Change:
    def change(obj: Obj) -> None:
        obj["spec"]["devices"]["requests"] = list(items)

    return change


def exactly(**fields: Any) -> Change:
    return requests({"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", **fields}})


def claim_part(**fields: Any) -> Change:
    return lambda obj: obj["spec"]["devices"].update(fields)


def metadata(**fields: Any) -> Change:
    return lambda obj: obj["metadata"].update(fields)


TAINT = {"key": "gpu-dra.dev/unhealthy", "value": "xid", "effect": "NoSchedule"}
NODE_SELECTOR = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}
SET = {"name": "gpu-0-counters", "counters": counters(memory="80Gi")}
USE = {"counterSet": "gpu-0-counters", "counters": counters(memory="10Gi")}
OPAQUE = {"opaque": {"driver": "gpu.nvidia.com", "parameters": {"kind": "GpuConfig"}}}

SLICES: dict[str, Change] = {
    "plain": lambda _: None,
    "driver missing": without("driver"),
    "driver not a subdomain": spec(driver="gpu_nvidia"),
    "driver too long": spec(driver="a" * 64),
    "pool missing": without("pool"),
    "pool name empty": spec(pool={"name": "", "generation": 1, "resourceSliceCount": 1}),
    "pool name bad": spec(pool={"name": "a//B", "generation": 1, "resourceSliceCount": 1}),
    "pool name too long": spec(pool={"name": "a" * 254, "generation": 1, "resourceSliceCount": 1}),
    "pool generation negative": spec(pool={"name": "a", "generation": -1, "resourceSliceCount": 1}),
    "pool slice count zero": spec(pool={"name": "a", "generation": 1, "resourceSliceCount": 0}),
    "no node selection": without("nodeName"),
    "empty node name": spec(nodeName=""),
    "bad node name": spec(nodeName="A_B"),
    "two node selections": spec(allNodes=True),
    "all nodes false": both(without("nodeName"), spec(allNodes=False)),
    "node selector": both(without("nodeName"), spec(nodeSelector=NODE_SELECTOR)),
    "node selector without terms": both(without("nodeName"), spec(nodeSelector={"nodeSelectorTerms": []})),
    "node selector with two terms": both(
        without("nodeName"), spec(nodeSelector={"nodeSelectorTerms": NODE_SELECTOR["nodeSelectorTerms"] * 2})
    ),
    "device name missing": devices({"attributes": {}}),
    "device name not a label": one(name="gpu_0"),
    "device name too long": one(name="a" * 64),
    "device names equal": devices(device(), device()),
    "128 devices": devices(*(device(f"d{i}") for i in range(128))),
    "129 devices": devices(*(device(f"d{i}") for i in range(129))),
    "65 devices, one with a taint": devices(*(device(f"d{i}") for i in range(64)), device("last", taints=[TAINT])),
    "65 devices, one with counters": devices(
        *(device(f"d{i}") for i in range(64)), device("last", consumesCounters=[USE])
    ),
    "attribute name bad": one(attributes={"a-b": {"string": "x"}}),
    "attribute name too long": one(attributes={"a" * 33: {"string": "x"}}),
    "attribute domain bad": one(attributes={"a_b/c": {"string": "x"}}),
    "attribute domain empty": one(attributes={"/c": {"string": "x"}}),
    "attribute without value": one(attributes={"a": {}}),
    "attribute with two values": one(attributes={"a": {"string": "x", "int": 1}}),
    "attribute string too long": one(attributes={"a": {"string": "x" * 65}}),
    "attribute version bad": one(attributes={"a": {"version": "535.104.05"}}),
    "attribute version short": one(attributes={"a": {"version": "12.4"}}),
    "attribute version too long": one(attributes={"a": {"version": "1.0.0-" + "a" * 60}}),
    "33 attributes and capacities": one(
        attributes={f"a{i}": {"int": i} for i in range(30)}, capacity={f"c{i}": {"value": "1"} for i in range(3)}
    ),
    "capacity name bad": one(capacity={"a-b": {"value": "1"}}),
    "capacity without sharing but with policy": one(
        capacity={"memory": {"value": "80Gi", "requestPolicy": {"default": "10Gi", "validValues": ["10Gi"]}}}
    ),
    "policy valid values": capacity(default="10Gi", validValues=["10Gi", "20Gi"]),
    "policy default not among values": capacity(default="5Gi", validValues=["10Gi", "20Gi"]),
    "policy values unsorted": capacity(default="20Gi", validValues=["20Gi", "10Gi"]),
    "policy values twice": capacity(default="10Gi", validValues=["10Gi", "10Gi"]),
    "policy with 11 values": capacity(default="1Gi", validValues=[f"{i}Gi" for i in range(1, 12)]),
    "policy without default": capacity(validValues=["10Gi"]),
    "policy with values and range": capacity(default="10Gi", validValues=["10Gi"], validRange={"min": "10Gi"}),
    "policy empty": capacity(),
    "policy range": capacity(default="10Gi", validRange={"min": "5Gi", "max": "80Gi", "step": "5Gi"}),
    "policy range without min": capacity(default="10Gi", validRange={"max": "80Gi"}),
    "policy range min above max": capacity(default="10Gi", validRange={"min": "20Gi", "max": "10Gi"}),
    "policy range max above value": capacity(default="10Gi", validRange={"min": "5Gi", "max": "90Gi"}),
    "policy default below min": capacity(default="1Gi", validRange={"min": "5Gi", "max": "80Gi"}),
    "policy default above max": capacity(default="50Gi", validRange={"min": "5Gi", "max": "40Gi"}),
    "policy default off step": capacity(default="7Gi", validRange={"min": "5Gi", "max": "80Gi", "step": "5Gi"}),
    "policy max off step": capacity(default="10Gi", validRange={"min": "5Gi", "max": "78Gi", "step": "5Gi"}),
    "taint": one(taints=[TAINT]),
    "taint effect missing": one(taints=[{"key": "a"}]),
    "taint effect unknown": one(taints=[{"key": "a", "effect": "Evict"}]),
    "taint key missing": one(taints=[{"effect": "NoSchedule"}]),
    "taint key bad": one(taints=[{"key": "a b", "effect": "NoSchedule"}]),
    "taint value bad": one(taints=[{"key": "a", "value": "a b", "effect": "NoSchedule"}]),
    "17 taints": one(taints=[{"key": f"k{i}", "effect": "NoSchedule"} for i in range(17)]),
    "taints equal": one(taints=[TAINT, TAINT]),
    "counters in their own slice": both(without("devices"), spec(sharedCounters=[SET])),
    "counters beside devices": both(devices(device(consumesCounters=[USE])), spec(sharedCounters=[SET])),
    "9 counter sets": both(without("devices"), spec(sharedCounters=[{**SET, "name": f"set-{i}"} for i in range(9)])),
    "33 counters in a set": both(
        without("devices"),
        spec(sharedCounters=[{"name": "s", "counters": {f"c{i}": {"value": "1"} for i in range(33)}}]),
    ),
    "counter set names equal": both(without("devices"), spec(sharedCounters=[SET, SET])),
    "counter set name bad": both(without("devices"), spec(sharedCounters=[{**SET, "name": "a_b"}])),
    "counter set name missing": both(without("devices"), spec(sharedCounters=[{"counters": SET["counters"]}])),
    "counter set without counters": both(without("devices"), spec(sharedCounters=[{"name": "s"}])),
    "counter name bad": both(
        without("devices"), spec(sharedCounters=[{"name": "s", "counters": {"a_b": {"value": "1"}}}])
    ),
    "consumed counters": one(consumesCounters=[USE]),
    "consumed set name missing": one(consumesCounters=[{"counters": USE["counters"]}]),
    "consumed set without counters": one(consumesCounters=[{"counterSet": "s"}]),
    "consumed set twice": one(consumesCounters=[USE, USE]),
    "3 consumed sets": one(consumesCounters=[{**USE, "counterSet": f"s-{i}"} for i in range(3)]),
    "33 consumed counters": one(
        consumesCounters=[{"counterSet": "s", "counters": {f"c{i}": {"value": "1"} for i in range(33)}}]
    ),
    "node in device without permission": one(nodeName="n1"),
    "per device nodes": both(without("nodeName"), spec(perDeviceNodeSelection=True), one(nodeName="n1")),
    "per device nodes, none given": both(without("nodeName"), spec(perDeviceNodeSelection=True), one()),
    "per device nodes, two given": both(
        without("nodeName"), spec(perDeviceNodeSelection=True), one(nodeName="n1", allNodes=True)
    ),
    "binding conditions": one(bindingConditions=["a"], bindingFailureConditions=["b"]),
    "binding conditions without failures": one(bindingConditions=["a"]),
    "binding failures without conditions": one(bindingFailureConditions=["b"]),
    "5 binding conditions": one(bindingConditions=list("abcde"), bindingFailureConditions=["x"]),
    "binding condition in both": one(bindingConditions=["a"], bindingFailureConditions=["a"]),
    "binding condition bad": one(bindingConditions=["a b"], bindingFailureConditions=["x"]),
    "slice name bad": metadata(name="A_B"),
    "label value bad": metadata(labels={"a": "b c"}),
    "owner without uid": metadata(ownerReferences=[{"apiVersion": "v1", "kind": "Node", "name": "n"}]),
    "two faults": both(spec(driver="A B"), one(name="gpu_0")),
}

CLAIMS: dict[str, Change] = {
    "plain": lambda _: None,
    "no requests": requests(),
    "request name missing": requests({"exactly": {"deviceClassName": "gpu.nvidia.com"}}),
    "request name bad": requests({"name": "a_b", "exactly": {"deviceClassName": "gpu.nvidia.com"}}),
    "request names equal": requests(*[{"name": "a", "exactly": {"deviceClassName": "gpu.nvidia.com"}}] * 2),
    "request without kind": requests({"name": "gpu"}),
    "request of both kinds": requests(
        {
            "name": "gpu",
            "exactly": {"deviceClassName": "gpu.nvidia.com"},
            "firstAvailable": [{"name": "a", "deviceClassName": "gpu.nvidia.com"}],
        }
    ),
    "class missing": requests({"name": "gpu", "exactly": {"count": 1}}),
    "class name bad": exactly(deviceClassName="A_B"),
    "33 requests": requests(*({"name": f"r{i}", "exactly": {"deviceClassName": "gpu.nvidia.com"}} for i in range(33))),
    "count zero": exactly(count=0),
    "count negative": exactly(count=-1),
    "count with All": exactly(allocationMode="All", count=2),
    "mode unknown": exactly(allocationMode="Some"),
    "33 selectors": exactly(selectors=[{"cel": {"expression": "true"}}] * 33),
    "selector without kind": exactly(selectors=[{}]),
    "selector without expression": exactly(selectors=[{"cel": {"expression": ""}}]),
    "tolerations": exactly(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]),
    "toleration operator unknown": exactly(tolerations=[{"key": "a", "operator": "Like"}]),
    "toleration effect unknown": exactly(tolerations=[{"key": "a", "operator": "Exists", "effect": "Now"}]),
    "toleration exists with value": exactly(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
    "toleration without key": exactly(tolerations=[{"operator": "Equal", "value": "b"}]),
    "17 tolerations": exactly(tolerations=[{"key": f"k{i}", "operator": "Exists"} for i in range(17)]),
    "capacity requests": exactly(capacity={"requests": {"memory": "10Gi"}}),
    "capacity request negative": exactly(capacity={"requests": {"memory": "-1"}}),
    "capacity request name bad": exactly(capacity={"requests": {"a-b": "10Gi"}}),
    "first available": requests({"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c"}]}),
    "first available names equal": requests(
        {"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c"}] * 2}
    ),
    "9 alternatives": requests(
        {"name": "a", "firstAvailable": [{"name": f"b{i}", "deviceClassName": "c"} for i in range(9)]}
    ),
    "alternative without class": requests({"name": "a", "firstAvailable": [{"name": "b"}]}),
    "alternative without name": requests({"name": "a", "firstAvailable": [{"deviceClassName": "c"}]}),
    "constraint": claim_part(constraints=[{"requests": ["gpu"], "matchAttribute": "gpu.nvidia.com/model"}]),
    "constraint empty": claim_part(constraints=[{}]),
    "constraint of an unknown request": claim_part(
        constraints=[{"requests": ["other"], "matchAttribute": "gpu.nvidia.com/model"}]
    ),
    "constraint attribute unqualified": claim_part(constraints=[{"matchAttribute": "model"}]),
    "constraint with both": claim_part(
        constraints=[{"matchAttribute": "gpu.nvidia.com/a", "distinctAttribute": "gpu.nvidia.com/b"}]
    ),
    "33 constraints": claim_part(constraints=[{"matchAttribute": "gpu.nvidia.com/a"}] * 33),
    "config": claim_part(config=[{"requests": ["gpu"], **OPAQUE}]),
    "config without opaque": claim_part(config=[{"requests": ["gpu"]}]),
    "config of an unknown request": claim_part(config=[{"requests": ["other"], **OPAQUE}]),
    "config request twice": claim_part(config=[{"requests": ["gpu", "gpu"], **OPAQUE}]),
    "config without driver": claim_part(config=[{"opaque": {"parameters": {}}}]),
    "config without parameters": claim_part(config=[{"opaque": {"driver": "gpu.nvidia.com"}}]),
    "config parameters not an object": claim_part(config=[{"opaque": {"driver": "d", "parameters": [1]}}]),
    "config parameters too large": claim_part(config=[{"opaque": {"driver": "d", "parameters": {"a": "x" * 10_300}}}]),
    "33 configs": claim_part(config=[OPAQUE] * 33),
    "admin access in a plain namespace": exactly(adminAccess=True),
    "claim name bad": metadata(name="A_B"),
    "annotation key bad": metadata(annotations={"a b": "c"}),
}


def result(**fields: Any) -> Obj:
    return {"request": "gpu", "driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0", **fields}


def allocated(*results: Obj, **fields: Any) -> Obj:
    return {"allocation": {"devices": {"results": list(results)}, **fields}}


def with_device(**fields: Any) -> Obj:
    entry = {"driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0", **fields}
    return {**allocated(result()), "devices": [entry]}


SHARE = "00000000-0000-4000-8000-000000000001"
OTHER_SHARE = "00000000-0000-4000-8000-000000000002"
POD = {"resource": "pods", "name": "p", "uid": "u-1"}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "R",
    "message": "",
    "lastTransitionTime": "2026-11-23T08:00:00Z",
}

STATUSES: dict[str, Obj] = {
    "allocation": allocated(result()),
    "allocation without results": {"allocation": {}},
    "result without driver": allocated(result(driver="")),
    "result without pool": allocated(result(pool="")),
    "result without device": allocated(result(device="")),
    "result device bad": allocated(result(device="gpu_0")),
    "result of an unknown request": allocated(result(request="other")),
    "result without request": allocated(result(request="")),
    "33 results": allocated(*(result(device=f"d{i}") for i in range(33))),
    "result share id bad": allocated(result(shareID="x")),
    "share": allocated(result(shareID=SHARE, consumedCapacity={"shares": "1", "memory": "0"})),
    "two shares of a device": allocated(result(shareID=SHARE), result(shareID=OTHER_SHARE)),
    "one share twice": allocated(result(shareID=SHARE), result(shareID=SHARE)),
    "consumed capacity without a share": allocated(result(consumedCapacity={"shares": "1"})),
    "consumed capacity name bad": allocated(result(shareID=SHARE, consumedCapacity={"a-b": "1"})),
    "consumed capacity negative": allocated(result(shareID=SHARE, consumedCapacity={"shares": "-1"})),
    "device status of a share": {
        **allocated(result(shareID=SHARE)),
        "devices": [{"driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0", "shareID": SHARE}],
    },
    "device status of another share": {
        **allocated(result(shareID=SHARE)),
        "devices": [{"driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0", "shareID": OTHER_SHARE}],
    },
    "device status without the share": {
        **allocated(result(shareID=SHARE)),
        "devices": [{"driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0"}],
    },
    "allocation config": allocated(
        result(), devices={"results": [result()], "config": [{"source": "FromClass", **OPAQUE}]}
    ),
    "allocation config source missing": {
        "allocation": {"devices": {"results": [result()], "config": [OPAQUE]}},
    },
    "allocation config source unknown": {
        "allocation": {"devices": {"results": [result()], "config": [{"source": "Here", **OPAQUE}]}},
    },
    "allocation node selector": allocated(result(), nodeSelector=NODE_SELECTOR),
    "allocation node selector with two terms": allocated(
        result(), nodeSelector={"nodeSelectorTerms": NODE_SELECTOR["nodeSelectorTerms"] * 2}
    ),
    "reserved": {**allocated(result()), "reservedFor": [POD]},
    "reserved without allocation": {"reservedFor": [POD]},
    "reserved twice": {**allocated(result()), "reservedFor": [POD, POD]},
    "reserved without uid": {**allocated(result()), "reservedFor": [{"resource": "pods", "name": "p"}]},
    "reserved without resource": {**allocated(result()), "reservedFor": [{"name": "p", "uid": "u"}]},
    "reserved for 257": {
        **allocated(result()),
        "reservedFor": [{"resource": "pods", "name": f"p{i}", "uid": f"u{i}"} for i in range(257)],
    },
    "device status": with_device(conditions=[CONDITION], data={"a": 1}),
    "device status of a device not allocated": with_device(device="gpu-1"),
    "device status twice": {
        **allocated(result()),
        "devices": [{"driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0"}] * 2,
    },
    "device status data not an object": with_device(data=[1]),
    "device status data too large": with_device(data={"a": "x" * 10_300}),
    "device status 9 conditions": with_device(conditions=[{**CONDITION, "type": f"T{i}"} for i in range(9)]),
    "device status condition without type": with_device(conditions=[{**CONDITION, "type": ""}]),
    "device status condition status unknown": with_device(conditions=[{**CONDITION, "status": "Maybe"}]),
    "device status network": with_device(
        networkData={"interfaceName": "eth0", "ips": ["10.0.0.1/24"], "hardwareAddress": "aa:bb"}
    ),
    "device status bad address": with_device(networkData={"ips": ["10.0.0.1"]}),
    "device status addresses equal": with_device(networkData={"ips": ["10.0.0.1/24", "10.0.0.1/24"]}),
    "device status interface too long": with_device(networkData={"interfaceName": "e" * 257}),
}

CLASSES: dict[str, Change] = {
    "plain": lambda _: None,
    "selector and config": spec(selectors=[{"cel": {"expression": "true"}}], config=[OPAQUE]),
    "33 selectors": spec(selectors=[{"cel": {"expression": "true"}}] * 33),
    "33 configs": spec(config=[OPAQUE] * 33),
    "config without opaque": spec(config=[{}]),
    "extended resource": spec(extendedResourceName="nvidia.com/gpu"),
    "extended resource unqualified": spec(extendedResourceName="gpu"),
    "extended resource of kubernetes": spec(extendedResourceName="kubernetes.io/gpu"),
    "class name bad": metadata(name="A_B"),
}
