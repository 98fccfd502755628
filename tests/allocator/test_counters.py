"""Devices that draw from shared counters: what fits beside what claims hold, and the words for what does not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import AllocationResult, Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.reasons import Failure, explain
from tests.allocator.builders import allocated, claim, device_class, request, resource_slice

ENGINE = CelEngine()
SLICES = 4  # memory slices of the little GPU below
MIG = device_class("mig", "device.attributes['gpu.nvidia.com'].type == 'mig'")
ANY = device_class("any", "true")


def draws(counter_set: str, **counters: int) -> Obj:
    return {"counterSet": counter_set, "counters": {name: {"value": str(value)} for name, value in counters.items()}}


def part(profile: str, start: int, size: int, gpu: int = 0) -> Obj:
    return {
        "name": f"gpu-{gpu}-mig-{profile}-{start}",
        "attributes": {"type": {"string": "mig"}, "profile": {"string": profile}},
        "consumesCounters": [draws(f"gpu-{gpu}", **{f"slice{n}": 1 for n in range(start, start + size)})],
    }


def whole(gpu: int = 0) -> Obj:
    device = part("all", 0, SLICES, gpu)
    return {**device, "name": f"gpu-{gpu}", "attributes": {"type": {"string": "gpu"}}}


def parts(gpu: int = 0) -> list[Obj]:
    ones = [part("1g", start, 1, gpu) for start in (3, 2, 1, 0)]
    return [whole(gpu), *ones, part("2g", 2, 2, gpu), part("2g", 0, 2, gpu)]


def sets(*gpus: int) -> list[Obj]:
    return [
        {"name": f"gpu-{gpu}", "counters": {f"slice{n}": {"value": "1"} for n in range(SLICES)}} for gpu in gpus or (0,)
    ]


def beside() -> list[Obj]:
    """The form of 1.34: counters and devices in one slice."""
    return [resource_slice("n", parts(), nodeName="n", sharedCounters=sets())]


def apart() -> list[Obj]:
    """The form since 1.35: counters in a slice of their own."""
    return [
        resource_slice("n", [], name="00000-n", count=2, nodeName="n", sharedCounters=sets()),
        resource_slice("n", parts(), name="00001-n", count=2),
    ]


def profile(name: str, count: int = 1) -> Obj:
    expression = f"device.attributes['gpu.nvidia.com'].profile == '{name}'"
    return request(name, expression, class_name="mig", count=count)


def allocate(slices: list[Obj], held: list[Obj], *claims: Obj) -> tuple[AllocationResult, ...] | Failure:
    snapshot = Snapshot.from_objects(slices, [MIG, ANY], held)
    return Allocator(ENGINE, snapshot).allocate(Node("n"), [parse_claim(each) for each in claims])


def names(outcome: tuple[AllocationResult, ...] | Failure) -> list[list[str]]:
    assert not isinstance(outcome, Failure), explain({"n": outcome})
    return [[result.device.id.device for result in each.results] for each in outcome]


def reason(outcome: tuple[AllocationResult, ...] | Failure) -> str:
    assert isinstance(outcome, Failure)
    return explain({"n": outcome})


def test_counters_beside_devices_and_apart() -> None:
    for slices in (beside(), apart()):
        outcome = allocate(slices, [], claim("a", profile("2g")), claim("b", profile("1g", 2)))
        assert names(outcome) == [["gpu-0-mig-2g-2"], ["gpu-0-mig-1g-1", "gpu-0-mig-1g-0"]]


def test_what_claims_hold_is_taken_off() -> None:
    held = [allocated(claim("old"), ("n", "gpu-0-mig-1g-3"))]
    assert names(allocate(apart(), held, claim("a", profile("2g")))) == [["gpu-0-mig-2g-0"]]
    text = reason(allocate(apart(), held, claim("a", request("g", "device.attributes['gpu.nvidia.com'].type == 'gpu'",
                                                            class_name="any"))))  # fmt: skip
    assert "1 on a part of a GPU that is in use by claim demo/old" in text


def test_admin_access_draws_nothing_and_waits_for_nothing() -> None:
    admin = claim("admin", request("r", class_name="mig", allocationMode="All", adminAccess=True))
    held = [allocated(claim("seen"), ("n", "gpu-0"), admin=True), allocated(claim("old"), ("n", "gpu-0-mig-1g-3"))]
    first, second = names(allocate(apart(), held, admin, claim("b", profile("1g", 3))))
    assert len(first) == 6
    assert second == ["gpu-0-mig-1g-2", "gpu-0-mig-1g-1", "gpu-0-mig-1g-0"]


def test_gpus_have_counters_of_their_own() -> None:
    slices = [resource_slice("n", [*parts(0), *parts(1)], nodeName="n", sharedCounters=sets(0, 1))]
    held = [allocated(claim("old"), ("n", "gpu-0"))]
    assert names(allocate(slices, held, claim("a", profile("2g", 2)))) == [["gpu-1-mig-2g-2", "gpu-1-mig-2g-0"]]


def test_holders_are_named_once_and_counted() -> None:
    held = [allocated(claim(f"c{n}"), ("n", f"gpu-0-mig-1g-{n}")) for n in range(SLICES)]
    assert reason(allocate(apart(), held, claim("a", profile("2g")))) == (
        "claim demo/a, request 2g: 1 node: 7 devices exist, 1 fails the class's selector "
        "`device.attributes['gpu.nvidia.com'].type == 'mig'`, 4 fail selector "
        "`device.attributes['gpu.nvidia.com'].profile == '2g'`, 2 on a part of a GPU that is in use by "
        "claims demo/c3, demo/c2, demo/c1 and 1 more"
    )


def test_a_profile_that_no_device_has_is_told_with_those_that_exist() -> None:
    text = reason(allocate(apart(), [], claim("a", profile("3g"))))
    assert text.endswith(
        "6 fail selector `device.attributes['gpu.nvidia.com'].profile == '3g'`, profile is one of 1g, 2g"
    )
    quoted = request("r", "'5g' == device.attributes['gpu.nvidia.com']['profile']", class_name="mig")
    assert reason(allocate(apart(), [], claim("a", quoted))).endswith(", profile is one of 1g, 2g")


def test_values_are_not_listed_where_some_device_has_what_is_asked() -> None:
    held = [allocated(claim("old"), ("n", "gpu-0"))]
    assert "is one of" not in reason(allocate(apart(), held, claim("a", profile("2g"))))


def test_a_device_on_an_unknown_counter_set_makes_the_pool_invalid() -> None:
    slices = [resource_slice("n", parts(1), nodeName="n", sharedCounters=sets(0))]
    text = reason(allocate(slices, [], claim("a", profile("1g"))))
    assert text.endswith("pool n is invalid: device gpu-1 draws from counter set gpu-1, which the pool does not have")


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Obj], list[int], int]:
    """Devices that draw from two counters, which of them a claim holds, and how many more are asked for."""
    amounts = st.integers(0, 3)
    devices: list[Obj] = [
        {"name": f"d{n}", "consumesCounters": [draws("s", a=draw(amounts), b=draw(amounts))]}
        for n in range(draw(st.integers(1, 6)))
    ]
    held = draw(st.lists(st.integers(0, len(devices) - 1), unique=True, max_size=2))
    return devices, held, draw(st.integers(1, 3))


def _drawn(devices: list[Any], chosen: tuple[int, ...], counter: str) -> int:
    return sum(int(devices[n]["consumesCounters"][0]["counters"][counter]["value"]) for n in chosen)


@given(situations(), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_the_first_set_that_fits_is_given(situation: tuple[list[Obj], list[int], int], a: int, b: int) -> None:
    devices, held, count = situation
    counters = {"name": "s", "counters": {"a": {"value": str(a)}, "b": {"value": str(b)}}}
    slices = [resource_slice("n", devices, nodeName="n", sharedCounters=[counters])]
    claims = [allocated(claim("old"), *(("n", f"d{n}") for n in held))]
    free = [n for n in range(len(devices)) if n not in held]
    fitting = [
        chosen
        for chosen in combinations(free, count)
        if _drawn(devices, (*held, *chosen), "a") <= a and _drawn(devices, (*held, *chosen), "b") <= b
    ]
    outcome = allocate(slices, claims, claim("new", request("r", class_name="any", count=count)))
    if fitting:
        assert names(outcome) == [[f"d{n}" for n in fitting[0]]]
    else:
        assert isinstance(outcome, Failure)
