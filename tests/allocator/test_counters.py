"""Devices that draw from shared counters: partitions of a GPU and the GPU itself, never two that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import AllocationResult, Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.pools import pools_from_slices
from dra_driver.allocator.reasons import Failure, explain
from tests.allocator.builders import DRIVER, allocated, claim, device_class, request, resource_slice
from tests.long_runs import steps

ENGINE = CelEngine()
SIZES = {"whole": 4, "half": 2, "quarter": 1}
HALF = "device.attributes['gpu.nvidia.com'].size == 'half'"
QUARTER = "device.attributes['gpu.nvidia.com'].size == 'quarter'"
WHOLE = "device.attributes['gpu.nvidia.com'].size == 'whole'"


def counters(values: dict[str, int]) -> Obj:
    return {name: {"value": str(value)} for name, value in values.items()}


def part(gpu: int, size: str, start: int = 0) -> Obj:
    taken = {f"slot-{slot}": 1 for slot in range(start, start + SIZES[size])} | {"engines": SIZES[size]}
    return {
        "name": f"g{gpu}-{size}-{start}",
        "attributes": {"size": {"string": size}, "parent": {"string": f"g{gpu}"}},
        "consumesCounters": [{"counterSet": f"g{gpu}", "counters": counters(taken)}],
    }


def parts(gpu: int) -> list[Obj]:
    return [
        part(gpu, "whole"),
        *(part(gpu, "half", start) for start in (0, 2)),
        *(part(gpu, "quarter", start) for start in range(4)),
    ]


def pool(gpus: int = 2, node: str = "n") -> list[Obj]:
    """Counters in a slice of their own, then one slice for each GPU, as from Kubernetes 1.35 on."""
    sets = [
        {"name": f"g{gpu}", "counters": counters({f"slot-{slot}": 1 for slot in range(4)} | {"engines": 4})}
        for gpu in range(gpus)
    ]
    count = gpus + 1
    first = resource_slice(node, [], name=f"00000-{node}", count=count)
    first["spec"]["sharedCounters"] = sets
    return [
        first,
        *(resource_slice(node, parts(gpu), name=f"0000{gpu + 1}-{node}", count=count) for gpu in range(gpus)),
    ]


def allocate(
    *claims: Obj, held: dict[str, list[str]] | None = None, slices: list[Obj] | None = None
) -> tuple[AllocationResult, ...] | Failure:
    holders = [
        allocated(claim(name, request()), *(("n", device) for device in names)) for name, names in (held or {}).items()
    ]
    everything = device_class(DRIVER, "device.driver == 'gpu.nvidia.com'")
    snapshot = Snapshot.from_objects(slices or pool(), [everything], holders)
    return Allocator(ENGINE, snapshot).allocate(Node("n"), [parse_claim(entry) for entry in claims])


def chosen(*claims: Obj, **changes: Any) -> list[str]:
    outcome = allocate(*claims, **changes)
    assert not isinstance(outcome, Failure), explain({"n": outcome})
    return [result.device.id.device for entry in outcome for result in entry.results]


def reason(*claims: Obj, **changes: Any) -> str:
    outcome = allocate(*claims, **changes)
    assert isinstance(outcome, Failure)
    return explain({"n": outcome})


def test_a_partition_in_use_takes_the_whole_and_what_overlaps() -> None:
    held = {"other": ["g0-quarter-1"]}
    assert chosen(claim("c", request("r", WHOLE)), held=held) == ["g1-whole-0"]
    assert chosen(claim("c", request("r", HALF)), held=held) == ["g0-half-2"]
    assert chosen(claim("c", request("r", QUARTER, count=4)), held=held) == [
        "g0-quarter-0",
        "g0-quarter-2",
        "g0-quarter-3",
        "g1-quarter-0",
    ]


def test_the_whole_in_use_takes_every_partition() -> None:
    assert chosen(claim("c", request("r", QUARTER)), held={"other": ["g0-whole-0"]}) == ["g1-quarter-0"]


def test_requests_and_claims_of_one_pod_share_the_counters() -> None:
    assert chosen(claim("a", request("r", QUARTER), request("s", HALF)), claim("b", request("r", WHOLE))) == [
        "g0-quarter-0",
        "g0-half-2",
        "g1-whole-0",
    ]
    together = reason(claim("a", request("r", QUARTER)), claim("b", request("r", WHOLE, count=2)))
    assert together == "claim demo/b: its requests together need more devices than are free"


def test_what_the_search_gives_back_is_free_again() -> None:
    """The first quarter leads nowhere for two halves of the same parent, so the search must leave that GPU."""
    same = [{"matchAttribute": f"{DRIVER}/parent", "requests": ["s", "t"]}]
    wanted = claim("c", request("s", HALF), request("t", HALF), constraints=same)
    assert chosen(wanted, held={"other": ["g0-quarter-3"]}) == ["g1-half-0", "g1-half-2"]


def test_the_scarcest_counter_decides() -> None:
    slices = pool(1)
    slices[0]["spec"]["sharedCounters"][0]["counters"]["engines"] = {"value": "2"}
    assert chosen(claim("c", request("r", QUARTER, count=2)), slices=slices) == ["g0-quarter-0", "g0-quarter-1"]
    text = reason(claim("c", request("r", WHOLE)), slices=slices)
    assert text == (
        "claim demo/c, request r: 1 node: 7 devices exist, 1 larger than its shared counters, "
        "6 fail selector `device.attributes['gpu.nvidia.com'].size == 'whole'`"
    )


def test_a_counter_that_the_set_lacks_is_never_enough() -> None:
    slices = pool(1)
    del slices[0]["spec"]["sharedCounters"][0]["counters"]["slot-3"]
    assert chosen(claim("c", request("r", HALF)), slices=slices) == ["g0-half-0"]
    assert "1 larger than its shared counters" in reason(claim("c", request("r", WHOLE)), slices=slices)


def test_the_reason_names_the_claims_that_hold_the_rest() -> None:
    held = {"one": ["g0-quarter-0"], "two": ["g1-half-2"]}
    text = reason(claim("c", request("r", WHOLE)), held=held)
    assert text.endswith("2 short of shared counters, in use by claims demo/one, demo/two")


def test_only_claims_in_the_way_are_named() -> None:
    held = {"far": ["g0-quarter-3"], "near": ["g0-quarter-0"], "whole": ["g1-whole-0"]}
    first_half = (
        "device.attributes['gpu.nvidia.com'].size == 'half' && device.attributes['gpu.nvidia.com'].parent == 'g0'"
    )
    text = reason(claim("c", request("r", first_half, count=1)), held={**held, "middle": ["g0-quarter-2"]})
    assert text.endswith("2 short of shared counters, in use by claims demo/far, demo/middle, demo/near")
    one = reason(claim("c", request("r", WHOLE)), held={"near": ["g0-quarter-0"], "whole": ["g1-whole-0"]})
    assert one.endswith("1 in use by claim demo/whole, 1 short of shared counters, in use by claim demo/near")


def test_all_fails_where_devices_overlap() -> None:
    everything = request("r", QUARTER, allocationMode="All")
    assert len(chosen(claim("c", everything))) == 8
    assert isinstance(allocate(claim("c", request("r", allocationMode="All"))), Failure)
    assert isinstance(allocate(claim("c", everything), held={"other": ["g0-half-0"]}), Failure)


def test_admin_access_neither_needs_nor_takes_counters() -> None:
    watch = claim("watch", request("r", WHOLE, adminAccess=True))
    assert chosen(watch, claim("c", request("r", HALF, count=2)), held={"other": ["g1-whole-0"]}) == [
        "g0-whole-0",
        "g0-half-0",
        "g0-half-2",
    ]


def test_counters_beside_the_devices_as_in_1_34() -> None:
    slices = [resource_slice("n", parts(0), count=1)]
    slices[0]["spec"]["sharedCounters"] = pool(1)[0]["spec"]["sharedCounters"]
    assert chosen(claim("c", request("r", HALF, count=2)), slices=slices) == ["g0-half-0", "g0-half-2"]


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (["g0"], "invalid: device g1-whole-0 consumes counter set g1, which is not there"),
        (["g0", "g1", "g0"], "invalid: counter set g0 appears twice"),
        (["g0", "g1"], ""),
    ],
)
def test_counter_sets_are_there_once(sets: list[str], problem: str) -> None:
    slices = pool()
    slices[0]["spec"]["sharedCounters"] = [{"name": name, "counters": {}} for name in sets]
    (found,) = pools_from_slices(slices)
    assert found.problem == problem


def _drawn(devices: list[Obj], chosen_numbers: Sequence[int], counter: str) -> int:
    return sum(int(devices[n]["consumesCounters"][0]["counters"][counter]["value"]) for n in chosen_numbers)


@given(st.data())
@settings(max_examples=steps(300, 75), deadline=None)
def test_the_first_set_that_fits_is_given(data: st.DataObject) -> None:
    """Against trying every set, with devices that draw anything from two counters, and claims that hold some."""
    amounts = st.integers(0, 3)
    devices: list[Obj] = [
        {"name": f"d{n}", "consumesCounters": [{"counterSet": "s", "counters": counters(taken)}]}
        for n, taken in enumerate(
            data.draw(st.lists(st.fixed_dictionaries({"a": amounts, "b": amounts}), min_size=1, max_size=6))
        )
    ]
    held = data.draw(st.lists(st.integers(0, len(devices) - 1), unique=True, max_size=2))
    count, total = data.draw(st.integers(1, 3)), {"a": data.draw(st.integers(0, 6)), "b": data.draw(st.integers(0, 6))}
    slices = [resource_slice("n", devices)]
    slices[0]["spec"]["sharedCounters"] = [{"name": "s", "counters": counters(total)}]
    fitting = [
        numbers
        for numbers in combinations([n for n in range(len(devices)) if n not in held], count)
        if all(_drawn(devices, (*held, *numbers), name) <= most for name, most in total.items())
    ]
    wanted = claim("c", request("r", count=count))
    outcome = allocate(wanted, held={"other": [f"d{n}" for n in held]}, slices=slices)
    if fitting:
        assert chosen(wanted, held={"other": [f"d{n}" for n in held]}, slices=slices) == [f"d{n}" for n in fitting[0]]
    else:
        assert isinstance(outcome, Failure)
