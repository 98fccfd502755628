"""Over generated clusters and claims: a device is never given twice, and what is given is what was asked.

The checker below reads the written status and the API objects, not the allocator's model, and evaluates the few
selectors it generates in plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.reasons import Failure, explain
from dra_driver.allocator.status import allocation_status
from tests.allocator.builders import DRIVER, claim, device_class, resource_slice, share_ids
from tests.long_runs import steps

ENGINE = CelEngine()
NODES = ("n0", "n1")

SELECTORS: dict[str, Callable[[Obj], bool]] = {
    "device.attributes['gpu.nvidia.com'].even": lambda device: bool(device["attributes"]["even"]["bool"]),
    "device.attributes['gpu.nvidia.com'].model in ['a', 'b']": lambda device: (
        device["attributes"]["model"]["string"] in ("a", "b")
    ),
    "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('20Gi')) >= 0": lambda device: (
        int(device["capacity"]["memory"]["value"].removesuffix("Gi")) >= 20
    ),
}
ATTRIBUTES = ("gpu.nvidia.com/model", "gpu.nvidia.com/root")


@st.composite
def devices(draw: st.DrawFn, index: int) -> Obj:
    taints = [{"key": "sick", "effect": "NoSchedule"}] if draw(st.integers(0, 5)) == 0 else []
    root = draw(st.sampled_from(["r0", "r1", None]))
    attributes: Obj = {
        "type": {"string": draw(st.sampled_from(["gpu", "gpu", "gpu", "mig"]))},
        "even": {"bool": index % 2 == 0},
        "model": {"string": draw(st.sampled_from("abc"))},
        **({"root": {"string": root}} if root else {}),
    }
    memory = draw(st.sampled_from(["10Gi", "20Gi", "40Gi"]))
    return {
        "name": f"d{index}",
        "attributes": attributes,
        "capacity": {"memory": {"value": memory}},
        **({"taints": taints} if taints else {}),
    }


@st.composite
def clusters(draw: st.DrawFn) -> list[Obj]:
    return [resource_slice(node, [draw(devices(index)) for index in range(draw(st.integers(0, 6)))]) for node in NODES]


@st.composite
def bodies(draw: st.DrawFn) -> Obj:
    mode = draw(st.sampled_from(["ExactCount", "ExactCount", "ExactCount", "All"]))
    chosen = draw(st.lists(st.sampled_from(sorted(SELECTORS)), max_size=2, unique=True))
    return {
        "deviceClassName": DRIVER,
        "allocationMode": mode,
        **({"count": draw(st.integers(1, 3))} if mode == "ExactCount" else {}),
        **({"selectors": [{"cel": {"expression": text}} for text in chosen]} if chosen else {}),
        **({"tolerations": [{"key": "sick", "operator": "Exists"}]} if draw(st.booleans()) else {}),
    }


@st.composite
def claims(draw: st.DrawFn, number: int) -> Obj:
    requests: list[Obj] = []
    for position in range(draw(st.integers(1, 2))):
        name = f"r{position}"
        if draw(st.integers(0, 3)) == 0:
            listed = [{"name": f"s{index}", **draw(bodies())} for index in range(draw(st.integers(1, 3)))]
            requests.append({"name": name, "firstAvailable": listed})
        else:
            admin = {"adminAccess": True} if draw(st.integers(0, 4)) == 0 else {}
            requests.append({"name": name, "exactly": {**draw(bodies()), **admin}})
    kind = draw(st.sampled_from(["matchAttribute", "distinctAttribute", None]))
    constraints = [{kind: draw(st.sampled_from(ATTRIBUTES))}] if kind else []
    return claim(f"c{number}", *requests, constraints=constraints)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[list[Obj], list[Obj]]:
    return draw(clusters()), [draw(claims(number)) for number in range(draw(st.integers(1, 5)))]


def allocate_one_by_one(slices: list[Obj], wanted: list[Obj]) -> list[Obj]:
    """As a scheduler would: each claim on the first node where it fits, the earlier ones in use."""
    done: list[Obj] = []
    for entry in wanted:
        allocator = Allocator(ENGINE, Snapshot.from_objects(slices, [device_class()], done))
        failures: dict[str, Failure] = {}
        for node in NODES:
            outcome = allocator.allocate(Node(node), [parse_claim(entry)])
            if not isinstance(outcome, Failure):
                status = {"allocation": allocation_status(outcome[0], node, "2026-11-23T08:03:30Z", share_ids())}
                done.append({**entry, "status": status})
                break
            failures[node] = outcome
        else:
            assert explain(failures), "a refusal always has a reason"
    return done


def by_key(slices: list[Obj]) -> dict[tuple[str, str], Obj]:
    return {
        (entry["spec"]["pool"]["name"], device["name"]): device
        for entry in slices
        for device in entry["spec"]["devices"]
    }


def chosen_body(entry: Obj, name: str) -> Obj:
    parent, _, sub = name.partition("/")
    request = next(candidate for candidate in entry["spec"]["devices"]["requests"] if candidate["name"] == parent)
    if not sub:
        exactly: Obj = request["exactly"]
        return exactly
    return next(body for body in request["firstAvailable"] if body["name"] == sub)


def matches(body: Obj, device: Obj) -> bool:
    expressions = [selector["cel"]["expression"] for selector in body.get("selectors") or ()]
    return device["attributes"]["type"]["string"] == "gpu" and all(SELECTORS[text](device) for text in expressions)


@settings(max_examples=steps(150, 37), deadline=None)
@given(workloads())
def test_a_device_is_never_allocated_twice(workload: tuple[list[Obj], list[Obj]]) -> None:
    slices, wanted = workload
    held: set[tuple[str, str]] = set()
    for entry in allocate_one_by_one(slices, wanted):
        for result in entry["status"]["allocation"]["devices"]["results"]:
            if not result.get("adminAccess"):
                key = (result["pool"], result["device"])
                assert key not in held
                held.add(key)


@settings(max_examples=steps(150, 37), deadline=None)
@given(workloads())
def test_every_result_satisfies_its_request(workload: tuple[list[Obj], list[Obj]]) -> None:
    slices, wanted = workload
    published = by_key(slices)
    for entry in allocate_one_by_one(slices, wanted):
        results = entry["status"]["allocation"]["devices"]["results"]
        assert len({result["pool"] for result in results}) == 1, "a claim stays on one node"
        check_counts(entry, results, published)
        for result in results:
            body = chosen_body(entry, result["request"])
            device = published[(result["pool"], result["device"])]
            assert matches(body, device)
            assert not device.get("taints") or body.get("tolerations")
        check_constraints(entry, results, published)


def check_counts(entry: Obj, results: list[Obj], published: dict[tuple[str, str], Obj]) -> None:
    names: dict[str, list[Obj]] = {}
    for result in results:
        names.setdefault(result["request"], []).append(result)
    assert {name.partition("/")[0] for name in names} == {r["name"] for r in entry["spec"]["devices"]["requests"]}
    assert len(names) == len(entry["spec"]["devices"]["requests"]), "one alternative per request"
    for name, group in names.items():
        body = chosen_body(entry, name)
        assert len({result["device"] for result in group}) == len(group)
        if body["allocationMode"] == "ExactCount":
            assert len(group) == body.get("count", 1)
        else:
            pool = group[0]["pool"]
            everything = {key for key, device in published.items() if key[0] == pool and matches(body, device)}
            assert {(result["pool"], result["device"]) for result in group} == everything


def check_constraints(entry: Obj, results: list[Obj], published: dict[tuple[str, str], Obj]) -> None:
    for constraint in entry["spec"]["devices"].get("constraints") or ():
        kind, attribute = next(iter(constraint.items()))
        values: list[Any] = [
            published[(result["pool"], result["device"])]["attributes"].get(attribute.split("/")[1])
            for result in results
        ]
        assert None not in values
        distinct = {value["string"] for value in values}
        assert len(distinct) == (1 if kind == "matchAttribute" else len(values))
