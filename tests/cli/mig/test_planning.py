"""Where more would go, what is in the way, and who would have to leave; on slices as the controller publishes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.mig_policy import MigMode
from dra_driver.allocator.model import ClaimKey
from dra_driver.cli.mig.planning import MigPlan, Placed, plan
from dra_driver.cli.mig.reading import ClusterView, map_cluster, view
from dra_driver.cli.mig.report import blocked, plan_json, plan_lines, planned_names
from dra_driver.cli.mig.want import WantError, check_profiles, parse_want
from dra_driver.devices.naming import MigName, parse_name
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.hardware.model import Gpu, MigPlacement
from dra_driver.kube.interface import Obj
from tests.cli.mig.world import DRIVER, claim, gpus, having, instance, inventory, slices

MIG_OFF = DevicePolicy(mig=MigPolicy((MigRule(mode=MigMode.OFF),)))


def one_node(node_gpus: Sequence[Gpu], *claims: Obj, policy: DevicePolicy | None = None) -> ClusterView:
    return view(DRIVER, [inventory("n0", node_gpus)], slices("n0", node_gpus, policy), claims)


def text(seen: ClusterView, wanted: Mapping[str, int]) -> str:
    found = plan(seen, wanted)
    maps = map_cluster(seen, planned_names(found))
    pods = {ClaimKey("ml", "a"): "pod a"}
    return "\n".join(line.plain for line in plan_lines(found, seen, maps, pods, 80))


def test_devices_go_where_the_scheduler_would_put_them() -> None:
    h100 = gpus("h100-sxm5-80gb", 2)
    found = plan(one_node(h100, claim("a", "n0", "gpu-0-mig-1g10gb-19-6")), {"3g.40gb": 2, "1g.10gb": 1})
    assert found == MigPlan(
        placed=(
            Placed("3g.40gb", "n0", "gpu-0-mig-3g40gb-9-0"),
            Placed("3g.40gb", "n0", "gpu-1-mig-3g40gb-9-4"),
            Placed("1g.10gb", "n0", "gpu-0-mig-1g10gb-19-5"),
        )
    )
    assert found.fits


def test_nodes_are_filled_by_name() -> None:
    here, there = gpus("h100-sxm5-80gb", 1), gpus("h100-sxm5-80gb", 1)
    seen = view(
        DRIVER,
        [inventory("n1", there), inventory("n0", here)],
        [*slices("n1", there), *slices("n0", here)],
        [claim("a", "n0", "gpu-0")],
    )
    assert [each.node for each in plan(seen, {"7g.80gb": 1}).placed] == ["n1"]


def test_one_claim_in_the_way_is_named_the_smallest_first() -> None:
    h100 = gpus("h100-sxm5-80gb", 2)
    seen = one_node(
        h100,
        claim("a", "n0", "gpu-0-mig-1g10gb-19-5", pods=["a"]),
        claim("b", "n0", "gpu-1-mig-2g20gb-14-4"),
    )
    found = plan(seen, {"7g.80gb": 1})
    assert found.move == (ClaimKey("ml", "a"),)
    assert set(found.missing[0].holders) == {ClaimKey("ml", "a"), ClaimKey("ml", "b")}
    lines = text(seen, {"7g.80gb": 1}).splitlines()
    assert lines[:2] == ["PROFILE  NODE  GPU  SLICES  DEVICE", "7g.80gb  -     -    -       no place for 1"]
    assert lines[-2:] == [
        "7g.80gb: 2 places, 2 taken wholly or in part by ml/a, ml/b.",
        "Everything fits once ml/a (pod a) has left.",
    ]


def test_two_claims_when_one_is_not_enough() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    seen = one_node(
        h100,
        claim("a", "n0", "gpu-0-mig-1g10gb-19-5"),
        claim("b", "n0", "gpu-0-mig-1g10gb-19-1"),
        claim("c", "n0", "gpu-0-mig-1g10gb-19-2"),
    )
    assert plan(seen, {"4g.40gb": 1}).move == (ClaimKey("ml", "b"), ClaimKey("ml", "c"))
    assert "once ml/b and ml/c have left." in text(seen, {"4g.40gb": 1})


def test_more_than_three_claims_are_not_looked_for() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    seen = one_node(h100, *(claim(f"c{n}", "n0", f"gpu-0-mig-1g10gb-19-{n}") for n in range(7)))
    found = plan(seen, {"7g.80gb": 1})
    assert (found.fits, found.move) == (False, ())
    assert "by ml/c0, ml/c1, ml/c2, ml/c3, ml/c4, ml/c5 and 1 more." in text(seen, {"7g.80gb": 1})
    assert text(seen, {"7g.80gb": 1}).endswith("No set of up to three claims makes room by leaving.")


def test_a_better_order_is_told() -> None:
    seen = one_node(gpus("h100-sxm5-80gb", 1))
    found = plan(seen, {"1g.10gb": 4, "3g.40gb": 1})
    assert [each.profile for each in found.missing] == ["3g.40gb"]
    assert found.better_order == ("3g.40gb", "1g.10gb")
    assert text(seen, {"1g.10gb": 4, "3g.40gb": 1}).endswith(
        "Everything fits when created in this order: 3g.40gb, 1g.10gb."
    )
    assert plan(seen, {"3g.40gb": 1, "1g.10gb": 4}).fits


def test_taints_and_other_devices_of_the_plan_are_in_the_way_too() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    h100[0] = having(h100[0], instance(h100[0], "1g.10gb", 5, foreign=True))
    seen = one_node(h100)
    found = plan(seen, {"3g.40gb": 2})
    assert [each.device for each in found.placed] == ["gpu-0-mig-3g40gb-9-0"]
    assert [blocked(each) for each in found.missing] == [
        (
            "3g.40gb: 2 places, 1 taken wholly or in part by devices of this plan, "
            "1 tainted gpu.nvidia.com/foreign-mig-instance=1g10gb:NoSchedule."
        )
    ]


def test_what_is_not_published_is_said() -> None:
    seen = one_node(gpus("h100-sxm5-80gb", 1, enabled=False), policy=MIG_OFF)
    assert [blocked(each) for each in plan(seen, {"3g.40gb": 1}).missing] == [
        "3g.40gb: none is published; static GPUs offer what exists on them, GPUs with mode off nothing."
    ]


def test_the_plan_as_text_and_json() -> None:
    h100 = gpus("h100-sxm5-80gb", 2)
    seen = one_node(h100, claim("a", "n0", "gpu-0-mig-3g40gb-9-4", pods=["a"]))
    assert (
        text(seen, {"4g.40gb": 1, "1g.10gb": 1})
        == """\
PROFILE  NODE  GPU    SLICES  DEVICE
4g.40gb  n0    gpu-0  0-3     gpu-0-mig-4g40gb-5-0
1g.10gb  n0    gpu-1  6       gpu-1-mig-1g10gb-19-6

n0  2 x NVIDIA H100 80GB HBM3
       0       1       2       3       4       5       6       7
gpu-0  <4g.40gb                       >[3g.40gb ml/a                  ]
gpu-1     .       .       .       .       .       .    <1g    >   .      7 free

  GPU    SLICES  PROFILE  CLAIM  PODS
  gpu-0  4-7     3g.40gb  ml/a   a

[claimed]   <planned>   . free memory slice

Everything fits."""
    )
    assert plan_json(plan(seen, {"7g.80gb": 2}), {"7g.80gb": 2}) == {
        "wanted": {"7g.80gb": 2},
        "fits": False,
        "placed": [{"profile": "7g.80gb", "node": "n0", "device": "gpu-1-mig-7g80gb-0-0"}],
        "missing": [
            {
                "profile": "7g.80gb", "count": 1, "places": 2, "taken": 2,
                "claims": [{"namespace": "ml", "name": "a"}], "tainted": {},
            }
        ],
        "move": [{"namespace": "ml", "name": "a"}],
        "betterOrder": [],
    }  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), unique=True, max_size=8),
    st.dictionaries(
        st.sampled_from(["1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb"]), st.integers(1, 2), min_size=1, max_size=3
    ),
)
@settings(max_examples=40, deadline=None)
def test_planned_devices_never_overlap_and_a_move_does_what_it_says(
    held: list[tuple[int, int]], wanted: dict[str, int]
) -> None:
    h100 = gpus("h100-sxm5-80gb", 2)
    claims = [claim(f"c{gpu}{at}", "n0", f"gpu-{gpu}-mig-1g10gb-19-{at}") for gpu, at in held]
    found = plan(one_node(h100, *claims), wanted)
    mig = h100[0].mig
    assert mig is not None
    places: list[tuple[int, MigPlacement]] = [(gpu, MigPlacement(at, 1)) for gpu, at in held]
    for each in found.placed:
        name = parse_name(each.device)
        assert isinstance(name, MigName)
        profile = mig.profile(name.profile_id)
        assert profile is not None
        where = MigPlacement(name.start, profile.placements[0].size)
        assert where in profile.placements
        assert not any(gpu == name.minor and where.overlaps(other) for gpu, other in places)
        places.append((name.minor, where))
    assert len(found.placed) + sum(each.count for each in found.missing) == sum(wanted.values())
    if found.move:
        leaving = {each.name for each in found.move}
        held_then = [each for each in claims if each["metadata"]["name"] not in leaving]
        planned = [claim(f"p{n}", "n0", each.device) for n, each in enumerate(found.placed)]
        rest = {each.profile: each.count for each in found.missing}
        assert plan(one_node(h100, *held_then, *planned), rest).fits


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("3g.40gb=2,1g.10gb=3", {"3g.40gb": 2, "1g.10gb": 3}),
        (" 1g.10gb , 1g.10gb = 2,", {"1g.10gb": 3}),
        ("1c.3g.40gb", {"1c.3g.40gb": 1}),
    ],
)
def test_wishes(given_text: str, expected: dict[str, int]) -> None:
    assert parse_want(given_text) == expected


@pytest.mark.parametrize(
    ("given_text", "message"),
    [
        ("", "nothing is wanted (such as --want 3g.40gb=2,1g.10gb=3)"),
        ("3g=1", "'3g=1': \"3g\" is no MIG profile (such as 3g.40gb=2,1g.10gb=3)"),
        ("1g.10gb=", "'1g.10gb=': a number of devices from 1 to 1000 must follow the ="),
        ("1g.10gb=0", "'1g.10gb=0': a number of devices from 1 to 1000 must follow the ="),
        ("1g.10gb=x", "'1g.10gb=x': a number of devices from 1 to 1000 must follow the ="),
    ],
)
def test_wishes_that_cannot_be_read(given_text: str, message: str) -> None:
    with pytest.raises(WantError) as refused:
        parse_want(given_text)
    assert str(refused.value) == message


def test_an_unknown_profile_is_answered_with_those_that_exist() -> None:
    h100, a30 = gpus("h100-sxm5-80gb", 1), gpus("a30", 1)
    seen = view(DRIVER, [inventory("n0", h100), inventory("n1", a30)], [], [])
    check_profiles(["1g.10gb", "2g.12gb+me"], seen)
    with pytest.raises(WantError) as refused:
        check_profiles(["3g.20gb"], seen)
    assert str(refused.value) == (
        "no GPU has MIG profile 3g.20gb, did you mean 3g.40gb? (NVIDIA H100 80GB HBM3: 1g.10gb, 2g.20gb, 3g.40gb, "
        "4g.40gb, 7g.80gb, 1g.10gb+me, 1g.20gb; NVIDIA A30: 1g.6gb, 2g.12gb, 4g.24gb, 1g.6gb+me, 2g.12gb+me)"
    )
    with pytest.raises(WantError, match="none of these GPUs has MIG"):
        check_profiles(["1g.10gb"], view(DRIVER, [inventory("n0", gpus("t4", 1))], [], []))
