"""Who takes which turn with which command line, and what claims say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from e2e.bench_peer import claims, settings
from e2e.bench_peer.drivers import Driver, Ours, Peer, Side, Surroundings
from e2e.bench_peer.plan import EVERY_ROUND, NAMES, ONCE, chosen, turns

AROUND = Surroundings("node-0", "/driver", "/admin.kubeconfig")
PEER, OURS = Peer(Path("/peer/gpu-kubelet-plugin")), Ours(Path("/venv/bin"))
DRIVERS: tuple[Driver, ...] = (PEER, OURS)


def test_both_drivers_take_turns_setting_by_setting() -> None:
    taken = list(turns(EVERY_ROUND, DRIVERS))
    order = [(turn.setting, turn.driver.side) for turn in taken if turn.setting is not settings.MPS]
    assert [side for _, side in order] == [Side.PEER, Side.OURS] * (len(order) // 2)
    assert all(peer[0] is ours[0] for peer, ours in zip(order[::2], order[1::2], strict=True))
    assert Counter(case for turn in taken for case in turn.cases if turn.driver is OURS) == Counter(EVERY_ROUND)


def test_a_setting_that_the_peer_cannot_have_is_ours_alone() -> None:
    assert [turn.driver.side for turn in turns(chosen(["mps"], EVERY_ROUND), DRIVERS)] == [Side.OURS]


def test_cases_are_chosen_by_name_over_all_settings() -> None:
    assert chosen((), EVERY_ROUND) == EVERY_ROUND
    assert {case.setting for case in chosen(["publication"], EVERY_ROUND)} == {
        settings.WHOLE,
        settings.MIG,
        settings.SHARED,
    }
    assert not chosen(["kubelet"], EVERY_ROUND)
    assert chosen(["kubelet"], ONCE) == ONCE
    assert len(NAMES) == len(set(NAMES))


def test_both_plugins_get_the_same_node_paths_and_gates() -> None:
    for setting in (settings.WHOLE, settings.MIG, settings.SLICED, settings.SHARED):
        peer, ours = (driver.plugin(setting, AROUND).command for driver in DRIVERS)
        only_ours = {option for option in ours[1:] if option not in peer}
        assert only_ours == {"--host-root=/driver"}, setting.name
        assert f"--feature-gates={','.join(setting.gates)}" in ours


def test_limits_are_raised_for_the_peer_alone() -> None:
    raised = "--kube-api-qps=1000"
    assert raised in PEER.plugin(settings.UNTHROTTLED, AROUND).command
    assert raised not in PEER.plugin(settings.WHOLE, AROUND).command
    assert raised not in OURS.plugin(settings.UNTHROTTLED, AROUND).command


def test_our_controller_is_told_what_the_plugin_is_told() -> None:
    assert not PEER.others(settings.SHARED, AROUND)
    (controller,) = OURS.others(settings.SHARED, AROUND)
    assert {"--consumable-shares=memory", "--feature-gates=DynamicMIG=false,ConsumableShares=true"} <= {
        *controller.command
    }
    assert [program.name for program in OURS.others(settings.MPS, AROUND)] == ["controller", "supervisor"]


def test_our_processes_run_as_in_the_image_whatever_this_one_does() -> None:
    environment = OURS.plugin(settings.WHOLE, AROUND).environment
    image = (Path(__file__).resolve().parents[3] / "deploy/image/Dockerfile").read_text()
    assert all(f"{name}={environment[name]}" in image for name in ("PYTHONOPTIMIZE", "MALLOC_ARENA_MAX"))
    assert environment["PYTHONDONTWRITEBYTECODE"] == ""


def test_an_allocation_says_what_the_scheduler_would() -> None:
    plain = claims.allocation(claims.gpu(3), "node-0", "unused")
    assert plain["devices"] == {
        "results": [{"request": "gpu", "driver": "gpu.nvidia.com", "pool": "node-0", "device": "gpu-3"}]
    }
    sliced = claims.allocation(claims.sliced(0), "node-0", "unused")["devices"]["config"]
    assert [entry["source"] for entry in sliced] == ["FromClaim"]
    assert sliced[0]["opaque"] == claims.spec(claims.sliced(0))["devices"]["config"][0]["opaque"]
    (share,) = claims.allocation(claims.share(1), "node-0", "an-id")["devices"]["results"]
    assert (share["shareID"], share["consumedCapacity"]) == ("an-id", {"memory": "10Gi"})
    (request,) = claims.spec(claims.share(1))["devices"]["requests"]
    assert request["exactly"]["capacity"] == {"requests": {"memory": "10Gi"}}
