"""Maps of GPUs as people see them: recorded states, drawn for 80 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from api.mig_policy import MigMode
from dra_driver.cli.mig.gpu_map import BlockState
from dra_driver.cli.mig.reading import ClusterView, map_cluster, view
from dra_driver.cli.mig.report import status_json, status_lines
from dra_driver.devices.naming import MigName
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.hardware.model import Gpu
from dra_driver.kube.interface import Obj
from tests.cli.mig.world import DRIVER, claim, gpus, having, instance, inventory, slices

STATIC = DevicePolicy(mig=MigPolicy((MigRule(mode=MigMode.STATIC),)))


def drawn(seen: ClusterView, width: int = 80) -> str:
    return "\n".join(line.plain for line in status_lines(seen, map_cluster(seen), width))


def one_node(node_gpus: Sequence[Gpu], *claims: Obj, policy: DevicePolicy | None = None) -> ClusterView:
    return view(DRIVER, [inventory("n0", node_gpus)], slices("n0", node_gpus, policy), claims)


def test_claims_hand_made_instances_and_whole_gpus() -> None:
    h100 = gpus("h100-sxm5-80gb", 3)
    h100[0] = having(h100[0], instance(h100[0], "1g.10gb", 6), instance(h100[0], "3g.40gb", 0, number=2))
    h100[2] = having(h100[2], instance(h100[2], "1g.10gb", 3, number=9, foreign=True))
    seen = one_node(
        h100,
        claim("train-x7k2p", "n0", "gpu-0-mig-1g10gb-19-6", pods=["train-x7k2p"]),
        claim("big-model", "n0", "gpu-0-mig-3g40gb-9-0", pods=["big-0", "big-1"]),
        claim("whole", "n0", "gpu-1"),
        claim("infer", "n0", "gpu-2-mig-2g20gb-14-4", pods=["infer"]),
    )
    assert (
        drawn(seen)
        == """\
n0  3 x NVIDIA H100 80GB HBM3
       0       1       2       3       4       5       6       7
gpu-0  [3g.40gb ml/big-model          ]   .       .    [1g tr~]   .      3 free
gpu-1  [gpu ml/whole                                                  ]
gpu-2     .       .       .    {1g    }[2g ml/infer   ]   .       .      5 free
  gpu-2: 8 of 26 devices tainted gpu.nvidia.com/foreign-mig-instance=1g10gb

  GPU    SLICES  PROFILE  CLAIM                    PODS
  gpu-0  0-3     3g.40gb  ml/big-model             big-0, big-1
  gpu-0  6       1g.10gb  ml/train-x7k2p           train-x7k2p
  gpu-1  0-7     gpu      ml/whole                 -
  gpu-2  3       1g.10gb  foreign: GPU instance 9  -
  gpu-2  4-5     2g.20gb  ml/infer                 infer

[claimed]   {foreign}   . free memory slice"""
    )


def test_static_gpus_have_instances_that_wait_for_a_claim() -> None:
    a100 = gpus("a100-sxm4-40gb", 1)
    a100[0] = having(a100[0], instance(a100[0], "3g.20gb", 4), instance(a100[0], "1g.5gb", 0, number=2))
    seen = one_node(a100, claim("c", "n0", "gpu-0-mig-1g5gb-19-0", pods=["p"]), policy=STATIC)
    assert drawn(seen).splitlines()[2] == (
        "gpu-0  [1g c  ]   .       .       .    (3g.20gb                       )  3 free"
    )
    assert "(exists, unclaimed)" in drawn(seen)


def test_gpus_without_mig_and_with_other_numbers_of_slices() -> None:
    t4, rtx = gpus("t4", 2), gpus("rtx-pro-6000", 1)
    seen = view(
        DRIVER,
        [inventory("n2", t4), inventory("n1", rtx)],
        [*slices("n1", rtx), *slices("n2", t4)],
        [
            claim("viz", "n1", "gpu-0-mig-1g24gb-gfx-47-3", pods=["viz"], namespace="render-team"),
            claim("t", "n2", "gpu-1", pods=["t"]),
        ],
    )
    lines = drawn(seen).splitlines()
    assert lines[:3] == [
        "n1  1 x NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "       0    1    2    3    4    5    6    7    8    9    10   11",
        "gpu-0    .    .    .  [1g viz       ]  .    .    .    .    .    .    9 free",
    ]
    assert lines[7:10] == [
        "n2  2 x Tesla T4",
        f"gpu-0  {' ' * 30}free",
        f"gpu-1  [gpu ml/t{' ' * 54}]",
    ]


@pytest.mark.parametrize(("width", "longest"), [(10, 72), (80, 80), (100, 100), (500, 120)])
def test_lines_keep_to_the_width(width: int, longest: int) -> None:
    h100 = gpus("h100-sxm5-80gb", 8)
    names = [f"gpu-{n}-mig-1g10gb-19-{start}" for n in range(8) for start in range(7)]
    seen = one_node(h100, *(claim(f"claim-{n}", "n0", name, pods=["p"]) for n, name in enumerate(names)))
    maps = [line for line in drawn(seen, width).splitlines() if line.startswith("gpu-")]
    assert len(maps) == 8
    assert longest - 10 <= max(map(len, maps)) <= longest


def test_parts_of_one_gpu_instance_share_a_block() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    seen = one_node(
        h100,
        claim("a", "n0", "gpu-0-mig-1c3g40gb-9-4-c0", pods=["a"]),
        claim("b", "n0", "gpu-0-mig-2c3g40gb-9-4-c1", pods=["b"]),
    )
    text = drawn(seen)
    assert "[3g.40gb ml/a, ml/b            ]" in text
    assert "  gpu-0  4-7     1c.3g.40gb  ml/a   a" in text.splitlines()
    assert "  gpu-0  4-7     2c.3g.40gb  ml/b   b" in text.splitlines()


def test_what_lies_in_the_way_of_a_claim_is_told() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    h100[0] = having(h100[0], instance(h100[0], "1g.10gb", 5, number=7, foreign=True))
    text = drawn(one_node(h100, claim("c", "n0", "gpu-0-mig-3g40gb-9-4"), claim("d", "n0", "gpu-0-mig-4g40gb-5-0"),
                          claim("e", "n0", "gpu-0-mig-1g10gb-19-2")))  # fmt: skip
    assert "  gpu-0: GPU instance 7 (1g.10gb at 5) lies in the way of what is drawn there" in text
    assert "  gpu-0: ml/e (1g.10gb at 2) overlaps what is drawn there" in text


def test_devices_that_are_not_ours_are_passed_over() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    other = claim("c", "n0", "gpu-0")
    other["status"]["allocation"]["devices"]["results"][0]["driver"] = "nic.example.com"
    admin = claim("d", "n0", "gpu-0")
    admin["status"]["allocation"]["devices"]["results"][0]["adminAccess"] = True
    odd = claim("e", "n0", "gpu-zero")
    (gpu_map,) = map_cluster(one_node(h100, other, admin, odd, claim("waits", "n0")))
    assert gpu_map.free == 8


def test_planned_devices_are_drawn_in() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    seen = one_node(h100, claim("c", "n0", "gpu-0-mig-3g40gb-9-4"))
    (gpu_map,) = map_cluster(seen, {"n0": [MigName(0, "1g10gb", 19, 3), MigName(0, "3g40gb", 9, 4, 0)]})
    assert [(block.state, block.placement.start) for block in gpu_map.blocks if block.state is not BlockState.FREE] == [
        (BlockState.PLANNED, 3),
        (BlockState.CLAIM, 4),
    ]


def test_what_keeps_people_from_a_node_is_said() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    refused = {"type": "MigLayoutApplied", "status": "False", "reason": "Busy", "message": "gpu-0: waits for ml/c"}
    silent: Obj = {"kind": "NodeInventory", "metadata": {"name": "n1"}, "status": {}}
    text = drawn(view(DRIVER, [inventory("n0", h100, refused), silent], [], []))
    assert "  gpu-0: none of its devices is published" in text
    assert text.endswith("n0: gpu-0: waits for ml/c\nn1: no GPU\nn1: the plugin has not read the hardware")


def test_slices_that_an_older_generation_left_behind_do_not_count() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    tainted = slices("n0", [having(h100[0], instance(h100[0], "1g.10gb", 5, foreign=True))])
    now = slices("n0", h100)
    for entry in now:
        entry["spec"]["pool"]["generation"] = 2
        entry["metadata"]["name"] += "-new"
    text = drawn(view(DRIVER, [inventory("n0", h100)], [*tainted, *now], []))
    assert "tainted" in drawn(view(DRIVER, [inventory("n0", h100)], tainted, []))
    assert "tainted" not in text


def test_colours_only_add() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    seen = one_node(h100, claim("c", "n0", "gpu-0-mig-3g40gb-9-4"))
    coloured, plain = io.StringIO(), io.StringIO()
    consoles = (
        Console(file=coloured, force_terminal=True, color_system="standard", width=80),
        Console(file=plain, force_terminal=True, color_system=None, width=80),
    )
    for console in consoles:
        for line in status_lines(seen, map_cluster(seen), 80):
            console.print(line, soft_wrap=True)
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[" not in plain.getvalue()
    assert plain.getvalue().splitlines() == drawn(seen).splitlines()


def test_json_has_it_all() -> None:
    h100 = gpus("h100-sxm5-80gb", 1)
    h100[0] = having(h100[0], instance(h100[0], "3g.40gb", 4, number=5))
    seen = one_node(h100, claim("c", "n0", "gpu-0-mig-3g40gb-9-4", pods=["p"]))
    (node,) = status_json(seen, map_cluster(seen))["nodes"]
    (gpu,) = node["gpus"]
    assert {key: gpu[key] for key in ("name", "product", "memorySlices", "free", "notes")} == {
        "name": "gpu-0", "product": "NVIDIA H100 80GB HBM3", "memorySlices": 8, "free": 4, "notes": [],
    }  # fmt: skip
    assert gpu["blocks"][0] == {"start": 0, "size": 1, "state": "free"}
    assert gpu["blocks"][-1] == {
        "start": 4, "size": 4, "state": "claim", "profile": "3g.40gb", "gpuInstance": 5,
        "claims": [
            {"namespace": "ml", "name": "c", "device": "gpu-0-mig-3g40gb-9-4", "profile": "3g.40gb", "pods": ["p"]}
        ],
    }  # fmt: skip
