"""Shares at prepare: several claims on one GPU, replicas of one, and how many a request may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.claim_config import SharingStrategy
from api.mig_policy import MigMode
from dra_driver.devices.policy import MigPolicy, MigRule
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule
from dra_driver.errors import DeviceInUse, DriverError
from dra_driver.hardware.model import Machine
from kubelet_plugin.inventory.sharing import NodeSharingInForce, SharingUnknown
from kubelet_plugin.kinds.replicas import TooManyShares
from tests.cdi.driver_root import VERSION
from tests.devices.mig_gpus import instance, mig_gpu
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result

SHARES = [f"5afb1ec1-3e70-424e-9ff3-40222{number:07x}" for number in range(8)]
MIG = "gpu-0-mig-1g10gb-19-0"


class Offered:
    """A ``SharingInForce``."""

    def __init__(self, *rules: SharingRule) -> None:
        self._policy = SharingPolicy(rules)

    def current(self) -> SharingPolicy:
        return self._policy


def rule(*, one_per_request: bool, mig_profile: str | None = None) -> SharingRule:
    return SharingRule(
        Replicas(SharingStrategy.TIME_SLICING, 4, one_per_request=one_per_request), mig_profile=mig_profile
    )


def static_node(folder: Path, *starts: int) -> TestNode:
    """A GPU with MIG devices 1g.10gb at ``starts``."""
    gpu = mig_gpu(enabled=True, instances=tuple(instance("1g.10gb", start) for start in starts))
    node = TestNode(folder, on=Machine(VERSION, 12040, (gpu,)), policy=MigPolicy((MigRule(mode=MigMode.STATIC),)))
    for start in starts:
        node.fake_mig.by_hand(gpu.uuid, 19, start)
    return node


def share(number: int, device: str = "gpu-0", request: str = "gpu") -> Any:
    return result(device, request, shareID=SHARES[number])


def prepared(node: TestNode, uid: str) -> DriverError | list[str]:
    engine = node.engine()
    try:
        answer = engine.prepare([ref(uid)], timeout=10)[uid]
        return answer if isinstance(answer, DriverError) else [device.device_name for device in answer]
    finally:
        engine.stop()


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    return TestNode(tmp_path)


def test_several_claims_have_shares_of_one_gpu_and_nothing_is_set_for_them(node: TestNode) -> None:
    node.sharing = Offered(rule(one_per_request=True))
    for number in range(4):
        node.claims.add(claim(f"u{number}", share(number)))
        assert prepared(node, f"u{number}") == ["gpu-0"]
    engine = node.engine()
    assert [[step.kind for step in entry.steps] for entry in engine.entries().values()] == [["CDIFile"]] * 4
    for number in range(4):
        assert engine.unprepare([ref(f"u{number}")], timeout=10) == {f"u{number}": None}
    engine.stop()
    assert node.left_overs() == []


def test_a_request_for_more_than_one_share_is_refused_where_the_configuration_says_so(node: TestNode) -> None:
    node.sharing = Offered(rule(one_per_request=True))
    node.claims.add(claim("u1", share(0), share(1, "gpu-1")))
    error = prepared(node, "u1")
    assert isinstance(error, TooManyShares)
    assert (
        "request gpu of claim default/u1:u1 has 2 shares of nvidia.com/gpu (gpu-0, gpu-1), and this node's "
        "configuration of sharing allows one share to a request (failRequestsGreaterThanOne)"
    ) in str(error)
    assert "ask for one nvidia.com/gpu" in error.hint
    assert not error.retryable
    assert node.left_overs() == []


def test_the_containers_of_a_pod_each_have_a_share_of_their_own(node: TestNode) -> None:
    node.sharing = Offered(rule(one_per_request=True))
    node.claims.add(claim("u1", share(0, request="container-0-request-0"), share(1, request="container-1-request-0")))
    assert prepared(node, "u1") == ["gpu-0", "gpu-0"]


def test_otherwise_a_request_may_have_several(node: TestNode) -> None:
    node.sharing = Offered(rule(one_per_request=False))
    node.claims.add(claim("u1", share(0), share(1), share(2, "gpu-1")))
    assert prepared(node, "u1") == ["gpu-0", "gpu-0", "gpu-1"]


def test_whole_gpus_are_not_counted(node: TestNode) -> None:
    node.sharing = Offered(rule(one_per_request=True))
    node.claims.add(claim("u1", result("gpu-0"), result("gpu-1")))
    assert prepared(node, "u1") == ["gpu-0", "gpu-1"]


def test_shares_of_mig_devices_are_another_resource(tmp_path: Path) -> None:
    node = static_node(tmp_path, 0, 1)
    node.sharing = Offered(rule(one_per_request=True, mig_profile="1g.10gb"))
    node.claims.add(claim("u1", share(0, MIG)), claim("u2", share(1, MIG), share(2, "gpu-0-mig-1g10gb-19-1")))
    assert prepared(node, "u1") == [MIG]
    error = prepared(node, "u2")
    assert isinstance(error, TooManyShares)
    assert "2 shares of nvidia.com/mig-1g.10gb" in str(error)


# -- replica devices --------------------------------------------------------------------------------------------------


def test_replicas_of_a_gpu_are_held_beside_each_other_each_by_one_claim(node: TestNode) -> None:
    for uid, device in (("u0", "gpu-0-replica-0"), ("u1", "gpu-0-replica-1"), ("u2", "gpu-0-replica-1")):
        node.claims.add(claim(uid, result(device)))
    assert prepared(node, "u0") == ["gpu-0-replica-0"]
    assert prepared(node, "u1") == ["gpu-0-replica-1"]
    assert isinstance(prepared(node, "u2"), DeviceInUse)
    assert node.device_nodes("u0") == node.device_nodes("u1")
    assert "/dev/nvidia0" in node.device_nodes("u0")


def test_the_gpu_itself_and_its_replicas_keep_each_other_out(node: TestNode) -> None:
    node.claims.add(claim("u0", result("gpu-0")), claim("u1", result("gpu-0-replica-1")), claim("u2", share(0)))
    assert prepared(node, "u0") == ["gpu-0"]
    error = prepared(node, "u1")
    assert isinstance(error, DeviceInUse)
    assert "gpu-0-replica-1 cannot be used beside gpu-0, which is held by claim default/u0" in str(error)
    assert isinstance(prepared(node, "u2"), DeviceInUse)


def test_a_request_for_two_replicas_is_one_for_two_shares(node: TestNode) -> None:
    node.sharing = Offered(rule(one_per_request=True))
    node.claims.add(claim("u0", result("gpu-0-replica-0"), result("gpu-0-replica-1")))
    assert isinstance(prepared(node, "u0"), TooManyShares)


def test_replicas_of_a_mig_device_are_held_beside_each_other(tmp_path: Path) -> None:
    node = static_node(tmp_path, 0)
    node.claims.add(claim("u0", result(f"{MIG}-replica-0")), claim("u1", result(f"{MIG}-replica-1")))
    node.claims.add(claim("u2", result(MIG)))
    assert prepared(node, "u0") == [f"{MIG}-replica-0"]
    assert prepared(node, "u1") == [f"{MIG}-replica-1"]
    assert isinstance(prepared(node, "u2"), DeviceInUse)


def test_before_the_inventory_was_read_several_shares_wait_and_whole_gpus_do_not(node: TestNode) -> None:
    node.sharing = NodeSharingInForce(SharingPolicy())
    node.claims.add(claim("u0", share(0), share(1)), claim("u1", result("gpu-2"), result("gpu-3")))
    error = prepared(node, "u0")
    assert isinstance(error, SharingUnknown)
    assert error.retryable
    assert prepared(node, "u1") == ["gpu-2", "gpu-3"]
    node.sharing.saw({"spec": {}})
    assert prepared(node, "u0") == ["gpu-0", "gpu-0"]
