"""Fractions at prepare: which fence each share gets, what containers see, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.fractions import SharingBackend
from api.mig_policy import MigMode
from dra_driver.devices.policy import MigPolicy, MigRule
from dra_driver.errors import ConflictingConfig, DeviceInUse, DriverError, StateError, UnsupportedConfig
from dra_driver.hardware.model import Machine
from kubelet_plugin.kinds.fence.step import FenceShare, fences_in, recorded_fence
from tests.cdi.driver_root import VERSION
from tests.devices.builders import gpu
from tests.devices.mig_gpus import instance, mig_gpu
from tests.kubelet_plugin.kinds.fence.claims import (
    SHARES,
    fraction,
    fraction_config,
    node_with,
    prepared,
    unprepared,
    variables,
)
from tests.kubelet_plugin.prepare.node import TestNode, claim, config, opaque, result

UUID = gpu(0).uuid
GROUP = f"fractions-{UUID.removeprefix('GPU-')}"
MIG = "gpu-0-mig-1g10gb-19-0"
NONE, MPS = SharingBackend.NONE, SharingBackend.MPS


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    return node_with(tmp_path, MPS)


def kinds_of_steps(node: TestNode, uid: str) -> list[str]:
    return [step.kind for step in node.checkpoint().entries()[uid].steps]


def fences(node: TestNode, uid: str) -> tuple[FenceShare, ...]:
    return fences_in(node.checkpoint().entries()[uid].steps)


def test_shares_of_one_gpu_are_in_one_group_each_with_its_own_limits(node: TestNode) -> None:
    node.claims.add(claim("u1", fraction(0)), claim("u2", fraction(1, "20Gi", "50")))
    assert prepared(node, "u1") == ["gpu-0"]
    assert prepared(node, "u2") == ["gpu-0"]
    assert kinds_of_steps(node, "u1") == ["MpsGroup", "Fence", "CDIFile"]
    assert node.supervisor.ids() == [GROUP]
    (group,) = node.supervisor.now()
    assert (group.group.exclusive_gpus, dict(group.group.pinned_memory_mib)) == ((UUID,), {})
    assert variables(node, "u1") == {
        "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"{UUID}=10240M",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
    }
    assert variables(node, "u2")["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"{UUID}=20480M"
    assert unprepared(node, "u1") is None
    assert node.supervisor.ids() == [GROUP]
    assert unprepared(node, "u2") is None
    assert node.supervisor.ids() == []
    assert node.left_overs() == []


def test_without_compute_there_is_no_ceiling(node: TestNode) -> None:
    node.claims.add(claim("u1", fraction(0, compute="0"), configs=[fraction_config(priority="Low")]))
    assert prepared(node, "u1") == ["gpu-0"]
    found = variables(node, "u1")
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in found
    assert found["CUDA_MPS_CLIENT_PRIORITY"] == "1"


@pytest.mark.parametrize(("memory", "compute"), [("81152Mi", "0"), ("80Gi", "0"), ("81152Mi", "100")])
def test_all_of_a_device_needs_no_fence_whether_asked_for_or_not(node: TestNode, memory: str, compute: str) -> None:
    node.claims.add(claim("u1", fraction(0, memory, compute)))
    assert prepared(node, "u1") == ["gpu-0"]
    assert kinds_of_steps(node, "u1") == ["CDIFile"]
    assert node.supervisor.ids() == []


def test_a_ceiling_is_held_also_where_a_claim_has_all_of_the_memory(node: TestNode) -> None:
    """Who asks for compute alone gets that: memory is all of it, unless asked for."""
    node.claims.add(claim("u1", fraction(0, "81152Mi", "50")))
    assert prepared(node, "u1") == ["gpu-0"]
    assert kinds_of_steps(node, "u1") == ["MpsGroup", "Fence", "CDIFile"]
    assert variables(node, "u1")["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"


def test_replicas_and_nvidias_counted_shares_are_no_fractions(node: TestNode) -> None:
    node.claims.add(
        claim("u1", result("gpu-0", shareID=SHARES[0], consumedCapacity={"memory": "4Gi"})),
        claim("u2", result("gpu-0", shareID=SHARES[1], consumedCapacity={"memory": "0", "shares": "1"})),
    )
    assert prepared(node, "u1") == ["gpu-0"]
    assert prepared(node, "u2") == ["gpu-0"]
    assert kinds_of_steps(node, "u1") == kinds_of_steps(node, "u2") == ["CDIFile"]


def test_a_repeated_prepare_answers_the_same_and_a_node_that_has_more_by_then_changes_nothing(tmp_path: Path) -> None:
    node = node_with(tmp_path, NONE)
    node.claims.add(claim("u1", fraction(0), configs=[fraction_config(minimumEnforcement="None")]))
    assert prepared(node, "u1") == ["gpu-0"]
    stronger = node_with(tmp_path, MPS)
    stronger.claims = node.claims
    assert prepared(stronger, "u1") == ["gpu-0"]
    assert [fence.backend for fence in fences(stronger, "u1")] == [NONE]
    assert variables(stronger, "u1") == {}


def test_several_shares_of_several_gpus_work_without_a_fence(tmp_path: Path) -> None:
    node = node_with(tmp_path, NONE)
    results = (fraction(0), fraction(1, request="b"), fraction(2, device="gpu-1", request="c"))
    node.claims.add(claim("u1", *results, configs=[fraction_config(minimumEnforcement="None")]))
    assert prepared(node, "u1") == ["gpu-0", "gpu-0", "gpu-1"]
    assert len(set(node.cdi_devices("u1"))) == 3
    assert [fence.share_id for fence in fences(node, "u1")] == SHARES[:3]


def test_a_share_beside_a_whole_gpu(node: TestNode) -> None:
    node.claims.add(claim("u1", fraction(0), result("gpu-1", "whole")))
    assert prepared(node, "u1") == ["gpu-0", "gpu-1"]
    assert [fence.device for fence in fences(node, "u1")] == ["gpu-0"]


def test_a_mig_device_is_named_by_its_own_uuid(tmp_path: Path) -> None:
    one = mig_gpu(enabled=True, instances=(instance("1g.10gb", 0),))
    machine = Machine(VERSION, 12040, (one,))
    node = node_with(tmp_path, MPS, on=machine, policy=MigPolicy((MigRule(mode=MigMode.STATIC),)))
    node.fake_mig.by_hand(one.uuid, 19, 0)
    node.claims.add(claim("u1", fraction(0, "2Gi", "50", MIG)))
    assert prepared(node, "u1") == [MIG]
    assert one.mig is not None
    uuid = one.mig.instances[0].compute_instances[0].uuid
    assert variables(node, "u1")["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"{uuid}=2048M"


def refused(node: TestNode, *results: Any, configs: tuple[Any, ...] = ()) -> DriverError:
    node.claims.add(claim("bad", *results, configs=configs))
    error = prepared(node, "bad")
    assert isinstance(error, DriverError)
    assert "bad" not in node.checkpoint().entries()
    return error


def test_a_node_without_a_fence_refuses_unless_the_claim_accepts_that(tmp_path: Path) -> None:
    node = node_with(tmp_path)
    error = refused(node, fraction(0))
    assert isinstance(error, UnsupportedConfig)
    assert (
        "minimumEnforcement: a share of gpu-0 must be cooperative, and this node has nothing to fence it with"
        in str(error)
    )
    assert "a FractionConfig with minimumEnforcement: None" in error.hint
    node.claims.add(claim("u1", fraction(0), configs=[fraction_config(minimumEnforcement="None")]))
    assert prepared(node, "u1") == ["gpu-0"]


def test_a_fence_that_is_too_weak_is_refused(node: TestNode) -> None:
    error = refused(node, fraction(0), configs=(fraction_config(minimumEnforcement="Enforced"),))
    assert "config[0].opaque.parameters.minimumEnforcement: a share of gpu-0 must be enforced" in str(error)
    assert "fences it by Mps (sharingEnforcement Cooperative)" in str(error)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"memoryLimit": "20Gi"},
            "memoryLimit: gpu-0 is fenced by Mps on this node, where nothing can be above what was",
        ),
        ({"memoryLimit": "lots"}, 'memoryLimit: must be a quantity of memory, not "lots"'),
        ({"minimumEnforcement": "Strict"}, "minimumEnforcement: must be one of Enforced, Cooperative, None"),
        ({"priority": "High"}, "priority: must be one of Normal, Low"),
        ({"priorty": "Low"}, "priorty: unknown field, did you mean priority?"),
    ],
)
def test_settings_that_cannot_be_had_are_refused(node: TestNode, fields: dict[str, str], said: str) -> None:
    assert said in str(refused(node, fraction(0), configs=(fraction_config(**fields),)))


def test_our_kind_has_our_api_version(node: TestNode) -> None:
    wrong = opaque({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "FractionConfig"})
    assert "apiVersion: must be gpu-dra.dev/v1alpha1, not" in str(refused(node, fraction(0), configs=(wrong,)))


def test_sharing_of_nvidias_kinds_cannot_be_asked_for_on_a_fraction(node: TestNode) -> None:
    for strategy in ("MPS", "TimeSlicing"):
        asked = opaque(config(sharing={"strategy": strategy}))
        error = refused(node, fraction(0), configs=(asked,))
        assert f"sharing.strategy: {strategy} cannot be asked for on gpu-0, which is offered in fractions" in str(error)


@pytest.mark.parametrize("other", ["gpu-0", "gpu-1"])
def test_two_fractions_of_a_claim_cannot_both_be_held_by_client_variables(node: TestNode, other: str) -> None:
    error = refused(node, fraction(0), fraction(1, device=other, request="second"))
    assert f"claim default/bad:bad has fractions of {other} (request second) and of gpu-0 (request gpu)" in str(
        error
    ) or f"claim default/bad:bad has fractions of gpu-0 (request gpu) and of {other} (request second)" in str(error)
    assert "in two claims, each for containers of its own" in error.hint


def test_low_priority_needs_mps(tmp_path: Path) -> None:
    node = node_with(tmp_path, NONE)
    asked = fraction_config(minimumEnforcement="None", priority="Low")
    assert "which knows no priorities" in str(refused(node, fraction(0), configs=(asked,)))


def test_more_than_there_is_waits_for_the_other_claims(node: TestNode) -> None:
    """Two schedulers, or one that counts otherwise."""
    node.claims.add(claim("u1", fraction(0, "50Gi", "70")))
    assert prepared(node, "u1") == ["gpu-0"]
    error = refused(node, fraction(1, "50Gi", "10"))
    assert isinstance(error, ConflictingConfig)
    assert "capacity.requests.memory: 50Gi cannot be had beside claim default/u1:u1" in str(error)
    assert "gpu-0 has 30Gi left on this node" in error.hint
    error = refused(node, fraction(1, "10Gi", "40"))
    assert "capacity.requests.compute: 40 cannot be had beside claim default/u1:u1" in str(error)
    assert "30 percent left" in error.hint


def test_one_claim_does_not_get_more_than_there_is_either(tmp_path: Path) -> None:
    node = node_with(tmp_path, NONE)
    accepts = fraction_config(minimumEnforcement="None")
    error = refused(node, fraction(0, "1Gi", "32"), fraction(1, "1Gi", "87", request="b"), configs=(accepts,))
    assert "capacity.requests.compute: 119 cannot be had beside claim default/bad:bad itself" in str(error)
    error = refused(node, fraction(0, "50Gi", "0"), fraction(1, "50Gi", "0", request="b"), configs=(accepts,))
    assert "capacity.requests.memory: 100Gi" in str(error)


def test_a_device_that_is_held_as_a_whole_is_not_shared(node: TestNode) -> None:
    node.claims.add(claim("u1", result("gpu-0")))
    assert prepared(node, "u1") == ["gpu-0"]
    assert isinstance(refused(node, fraction(0)), DeviceInUse)


def test_a_daemon_that_does_not_start_leaves_nothing(node: TestNode) -> None:
    node.supervisor.away = True
    node.claims.add(claim("u1", fraction(0)))
    assert isinstance(prepared(node, "u1"), DriverError)
    node.supervisor.away = False
    assert prepared(node, "u1") == ["gpu-0"]
    assert unprepared(node, "u1") is None
    assert node.supervisor.ids() == []


def test_the_record_of_a_fence_is_read_back() -> None:
    fence = FenceShare("uid", "gpu-0", SHARES[0], UUID, UUID, MPS, 10 * 2**30, 20 * 2**30, 25, low_priority=True)
    assert recorded_fence(fence.record()) == fence


def test_a_backend_that_this_version_does_not_know_is_told(node: TestNode) -> None:
    node.claims.add(claim("u1", fraction(0)))
    assert prepared(node, "u1") == ["gpu-0"]
    checkpoint = (node.state / "checkpoint.json").read_text()
    assert "Mps" in checkpoint
    kinds = node.kinds()
    (record,) = (step for step in node.checkpoint().entries()["u1"].steps if step.kind == "Fence")
    broken = type(record)(record.kind, {**record.arguments, "backend": "Quantum"})
    with pytest.raises(StateError, match="arguments that cannot be read"):
        kinds.again(broken)
