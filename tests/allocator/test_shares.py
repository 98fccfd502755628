"""Devices that are given in shares: who gets how much of which, what is written, and what a person is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.allocator.allocate import Allocator, Snapshot, devices_in_use
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.charges import Charges
from dra_driver.allocator.consumption import Amounts, Shortfall, consumption, largest
from dra_driver.allocator.counters import CounterBalance
from dra_driver.allocator.model import AllocationResult, ClaimKey, Device, DeviceId, Holding, Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import devices_held, holdings, parse_claim
from dra_driver.allocator.pools import pools_from_slices
from dra_driver.allocator.reasons import Failure, explain
from dra_driver.allocator.shares import ShareBalance
from dra_driver.allocator.status import allocation_status
from dra_driver.quantity import Quantity
from tests.allocator import share_cases, share_worlds
from tests.allocator.builders import DRIVER, claim, resource_slice, share_ids
from tests.allocator.share_cases import CASES, CLASSES, FOUR, PLAIN, Case, asks, asks_all, has, one, shared, whole
from tests.long_runs import steps

ENGINE = CelEngine()


def allocate(slices: list[Obj], held: list[Obj], *wanted: Obj) -> tuple[AllocationResult, ...] | Failure:
    allocator = Allocator(ENGINE, Snapshot.from_objects(slices, CLASSES, held))
    return allocator.allocate(Node("n"), [parse_claim(entry) for entry in wanted])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_claims_get(case: Case) -> None:
    outcome = allocate(case.slices, case.held, *case.wanted)
    if isinstance(outcome, Failure):
        assert not isinstance(case.given, list), explain({"n": outcome})
        assert outcome.fatal == (case.given is not None)
        assert (case.given or "") in explain({"n": outcome})
        return
    new_id = share_ids()
    statuses = [allocation_status(result, "n", "2026-11-23T08:03:30Z", new_id) for result in outcome]
    assert [share_cases.given_by(status) for status in statuses] == case.given


def test_a_share_is_written_with_its_id_and_all_that_it_consumes() -> None:
    outcome = allocate([resource_slice("n", [shared("a", shares=FOUR, m=PLAIN)])], [], one("c", m="1"))
    assert not isinstance(outcome, Failure)
    status = allocation_status(outcome[0], "n", "2026-11-23T08:03:30Z", share_ids())
    assert status["devices"]["results"] == [
        {
            "request": "r",
            "driver": DRIVER,
            "pool": "n",
            "device": "a",
            "shareID": "00000000-0000-4000-8000-000000000000",
            "consumedCapacity": {"shares": "1", "m": "1"},
        }
    ]


def test_each_share_has_an_id_of_its_own() -> None:
    outcome = allocate([resource_slice("n", [shared("a", shares=FOUR)])], [], claim("c", asks("x"), asks("y")))
    assert not isinstance(outcome, Failure)
    results = allocation_status(outcome[0], "n", "2026-11-23T08:03:30Z", share_ids())["devices"]["results"]
    assert len({result["shareID"] for result in results}) == 2


def test_shares_in_use_are_told_per_result() -> None:
    two = has("two", "a", {"shares": "1"})
    two["status"]["allocation"]["devices"]["results"] *= 2
    device = DeviceId(DRIVER, "n", "a")
    share = Holding(ClaimKey("demo", "two"), {"shares": Quantity.of(1)})
    alone = Holding(ClaimKey("demo", "whole"))
    assert list(devices_held(two)) == [device]
    assert [holding.share for _device, holding in holdings(two)] == ["11111111-0000-4000-8000-000000000003"] * 2
    assert devices_in_use([two, has("whole", "a", None, share=False)]) == {device: (share, share, alone)}


def admin(name: str, **fields: Any) -> Obj:
    entry = asks(name)
    entry["exactly"] |= {"adminAccess": True, **fields}
    return entry


def test_admin_access_needs_and_takes_no_capacity() -> None:
    slices = [resource_slice("n", [shared("a", m=PLAIN)])]
    full = [has("old", "a", {"m": "2"})]
    outcome = allocate(slices, full, claim("c", admin("x"), admin("y")))
    assert not isinstance(outcome, Failure)
    status = allocation_status(outcome[0], "n", "2026-11-23T08:03:30Z", share_ids())
    assert [result["consumedCapacity"] for result in status["devices"]["results"]] == [{"m": "2"}, {"m": "2"}]
    watching = {**claim("c"), "status": {"allocation": status}}
    assert list(devices_held(watching)) == []
    assert not isinstance(allocate(slices, [watching], one("later")), Failure)


def reason(devices: list[Obj], wanted: Obj, held: list[Obj] | None = None) -> str:
    outcome = allocate([resource_slice("n", devices)], held or [], wanted)
    assert isinstance(outcome, Failure)
    return explain({"n": outcome})


def test_the_reason_names_what_is_left_and_who_has_the_rest() -> None:
    held = [has(f"{device}{number}", device, {"shares": "1"}) for device in "ab" for number in range(4)]
    text = reason([shared("a", shares=FOUR), shared("b", shares=FOUR)], one("c"), held)
    assert text == (
        "claim demo/c, request r: 1 node: 2 devices exist, 2 short of capacity (shares 0 of 4 left, asked 1), in use by"
        " claims demo/a0, demo/a1, demo/a2 and 5 more"
    )


def test_what_is_left_is_told_for_each_amount() -> None:
    devices = [shared("a", m=share_cases.capacity("4")), shared("b", m=share_cases.capacity("4"))]
    held = [has("x", "a", {"m": "3"}), has("y", "b", {"m": "4"})]
    assert reason(devices, one("c", m="2"), held).endswith(
        "2 devices exist, 1 short of capacity (m 1 of 4 left, asked 2), in use by claim demo/x,"
        " 1 short of capacity (m 0 of 4 left, asked 2), in use by claim demo/y"
    )


@pytest.mark.parametrize(
    ("device", "amounts", "text"),
    [
        (
            shared("a", shares=FOUR),
            {"shares": "3"},
            "1 given in smaller shares (asked shares 3, at most 1 per request)",
        ),
        (shared("a", m=share_cases.PAIRS), {"m": "5"}, "1 given in smaller shares (asked m 5, at most 4 per request)"),
        (shared("a", m=PLAIN), {"m": "3"}, "1 too small (m 2, asked 3)"),
        (whole("a", m=PLAIN), {"other": "3"}, "1 too small (other absent, asked 3)"),
    ],
)
def test_the_reason_names_what_a_device_can_never_give(device: Obj, amounts: dict[str, str], text: str) -> None:
    assert reason([device], one("c", **amounts)).endswith(text)


def test_a_request_for_two_is_told_that_it_needs_two_devices() -> None:
    assert reason([shared("a", shares=FOUR)], claim("c", asks(count=2))).endswith(
        "1 device exists, 1 would fit, but 2 are asked per node, and a request has one share of a device at most"
    )


def test_all_is_told_that_one_is_used_up() -> None:
    devices = [shared("a", m=PLAIN), shared("b", m=PLAIN)]
    text = reason(devices, claim("c", asks_all(m="1")), [has("old", "a", {"m": "2"})])
    assert "1 short of capacity (m 0 of 2 left, asked 1), in use by claim demo/old" in text
    assert text.endswith("1 would fit, but all of them are asked")


def consumed_of(held: list[Obj]) -> dict[str, dict[str, Quantity]]:
    totals: dict[str, dict[str, Quantity]] = {}
    for entry in held:
        for result in entry["status"]["allocation"]["devices"]["results"]:
            total = totals.setdefault(result["device"], {})
            for name, amount in (result.get("consumedCapacity") or {}).items():
                total[name] = total.get(name, Quantity.of(0)) + Quantity.parse(amount)
    return totals


@settings(max_examples=steps(200, 50), deadline=None)
@given(st.data())
def test_never_more_is_consumed_than_there_is(data: st.DataObject) -> None:
    """Pods come and go; what is written is checked against what is published."""
    slices = data.draw(share_worlds.slices())
    devices = {device["name"]: device for entry in slices for device in entry["spec"].get("devices") or ()}
    held: list[Obj] = []
    new_id = share_ids()
    for number in range(data.draw(st.integers(1, 6))):
        leaving = data.draw(st.sampled_from([None, *range(len(held))]))
        if leaving is not None:
            held.pop(leaving)
        wanted = data.draw(share_worlds.pods(f"p{number}"))
        outcome = allocate(slices, held, *wanted)
        if isinstance(outcome, Failure):
            assert explain({"n": outcome})
            continue
        for entry, result in zip(wanted, outcome, strict=True):
            status = allocation_status(result, "n", "2026-11-23T08:03:30Z", new_id)
            held.append({**entry, "status": {"allocation": status}})
        for name, total in consumed_of(held).items():
            capacity = devices[name].get("capacity") or {}
            assert all(amount <= Quantity.parse(capacity[key]["value"]) for key, amount in total.items())
        check_results(held, devices)


def check_results(held: list[Obj], devices: dict[str, Obj]) -> None:
    results = [result for entry in held for result in entry["status"]["allocation"]["devices"]["results"]]
    alone = [result["device"] for result in results if not devices[result["device"]].get("allowMultipleAllocations")]
    assert len(set(alone)) == len(alone), "a device that is not shared is given once"
    for result in results:
        is_shared = bool(devices[result["device"]].get("allowMultipleAllocations"))
        assert ("shareID" in result) == is_shared
        published = devices[result["device"]].get("capacity") or {}
        assert set(result.get("consumedCapacity") or {}) == (set(published) if is_shared else set())
    ids = [result["shareID"] for result in results if "shareID" in result]
    assert len(set(ids)) == len(ids)


@settings(max_examples=steps(100, 25), deadline=None)
@given(st.data())
def test_what_a_search_gives_back_is_there_again(data: st.DataObject) -> None:
    pools = pools_from_slices(data.draw(share_worlds.slices()))
    devices = [device for pool in pools for device in pool.devices]
    amounts = {device.id: consumption({}, device.offers) for device in devices}
    charges = Charges(CounterBalance(pools, {}), ShareBalance({}))

    def fitting() -> list[bool]:
        return [not charges.is_gone(device) and charges.fits(device, taken_by(device)) for device in devices]

    def taken_by(device: Device) -> Amounts:
        found = amounts[device.id]
        assert not isinstance(found, Shortfall), "a policy's default always fits"
        return found

    seen = [fitting()]
    taken: list[Device] = []
    for _ in range(data.draw(st.integers(0, 8))):
        candidates = [device for device, fits in zip(devices, seen[-1], strict=True) if fits]
        if not candidates:
            break
        taken.append(data.draw(st.sampled_from(candidates)))
        charges.take(taken[-1], taken_by(taken[-1]))
        seen.append(fitting())
    while taken:
        assert fitting() == seen.pop()
        charges.give_back(taken.pop())
    assert fitting() == seen.pop()


@given(st.data())
def test_the_largest_request_is_the_largest_that_is_given(data: st.DataObject) -> None:
    most = data.draw(st.integers(1, 8))
    policy, left = data.draw(share_worlds.policies(most)), data.draw(st.integers(-1, most))
    capacity = {"value": str(most), **({"requestPolicy": policy} if policy is not None else {})}
    raw = resource_slice("n", [{"name": "a", "capacity": {"m": capacity}, "allowMultipleAllocations": True}])
    offers = pools_from_slices([raw])[0].devices[0].offers
    taken = [consumption({"m": Quantity.of(asked)}, offers) for asked in range(most + 1)]
    amounts = [each["m"].value() for each in taken if not isinstance(each, Shortfall) and each["m"].value() <= left]
    found = largest(offers["m"], Quantity.of(left))
    assert (None if found is None else found.value()) == max(amounts, default=None)
