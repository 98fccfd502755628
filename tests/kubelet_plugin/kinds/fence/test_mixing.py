"""The rows about fractions of docs/dev/sharing-modes.md, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.claim_config import SharingStrategy
from api.fractions import SharingBackend
from api.mig_policy import MigMode
from dra_driver.devices.policy import MigPolicy, MigRule
from dra_driver.errors import ConflictingConfig, DeviceInUse, DriverError, UnsupportedConfig
from dra_driver.hardware.model import Machine
from tests.cdi.driver_root import VERSION
from tests.devices.mig_gpus import instance, mig_gpu
from tests.kubelet_plugin.kinds.fence.claims import (
    SHARES,
    Has,
    Offered,
    fraction,
    fraction_config,
    node_with,
    prepared,
    unprepared,
)
from tests.kubelet_plugin.kinds.fence.test_stronger import backends, cgroup_node
from tests.kubelet_plugin.kinds.mps.claims import Shared, mps, slices
from tests.kubelet_plugin.prepare.node import TestNode, claim, result

CGROUP, MPS, NONE = SharingBackend.CGROUP, SharingBackend.MPS, SharingBackend.NONE
ACCEPTS = fraction_config(minimumEnforcement="None")
PLAIN: dict[str, Any] = {"shareID": SHARES[7], "consumedCapacity": {"memory": "1Gi"}}


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    return node_with(tmp_path, MPS)


def refused(node: TestNode, uid: str) -> DriverError:
    error = prepared(node, uid)
    assert isinstance(error, DriverError), f"{uid} was prepared"
    assert uid not in node.checkpoint().entries()
    return error


def waits_for(node: TestNode, uid: str, first: str) -> str:
    """``uid`` is refused while ``first`` is there, and prepared afterwards. Returns the refusal."""
    error = refused(node, uid)
    assert isinstance(error, ConflictingConfig)
    assert f"claim default/{first}:{first}" in str(error)
    assert unprepared(node, first) is None
    assert prepared(node, uid) == ["gpu-0"]
    return str(error)


# -- between claims ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configs", [(), (slices(),)])
def test_a_fraction_by_mps_beside_a_share_without(node: TestNode, configs: tuple[Any, ...]) -> None:
    """Of before the GPU was offered in fractions."""
    node.claims.add(claim("u1", result("gpu-0", **PLAIN), configs=configs), claim("u2", fraction(0)))
    assert prepared(node, "u1") == ["gpu-0"]
    said = waits_for(node, "u2", "u1")
    assert "claim default/u1:u1 uses gpu-0 without MPS" in said
    assert "claim default/u2:u2 would use it through MPS group fractions-" in said


@pytest.mark.parametrize("configs", [(), (slices(),)])
def test_a_share_without_mps_beside_a_fraction_by_mps(node: TestNode, configs: tuple[Any, ...]) -> None:
    node.claims.add(claim("u1", fraction(0)), claim("u2", result("gpu-0", **PLAIN), configs=configs))
    assert prepared(node, "u1") == ["gpu-0"]
    assert "claim default/u1:u1 uses gpu-0 through MPS group fractions-" in waits_for(node, "u2", "u1")


def test_a_fraction_beside_an_mps_replica(node: TestNode) -> None:
    """Two groups on one GPU: it was offered in replicas before."""
    node.sharing = Shared(SharingStrategy.MPS, 4)
    replica: dict[str, Any] = {"shareID": SHARES[7], "consumedCapacity": {"shares": "1", "memory": "0"}}
    node.claims.add(claim("u1", result("gpu-0", **replica)), claim("u2", fraction(0)))
    assert prepared(node, "u1") == ["gpu-0"]
    node.sharing = Offered()
    said = waits_for(node, "u2", "u1")
    assert "claim default/u1:u1 uses gpu-0 through MPS group replicas-" in said
    assert "would use it through MPS group fractions-" in said


@pytest.mark.parametrize("backend", [CGROUP, NONE])
@pytest.mark.parametrize("configs", [(), (slices(),)])
def test_a_fraction_without_mps_beside_a_share_without(
    tmp_path: Path, configs: tuple[Any, ...], backend: SharingBackend
) -> None:
    """The driver's limit changes nothing of the GPU."""
    node = cgroup_node(tmp_path, CGROUP)[0] if backend is CGROUP else node_with(tmp_path, NONE)
    node.claims.add(
        claim("u1", fraction(0, compute="0"), configs=[ACCEPTS]),
        claim("u2", result("gpu-0", **PLAIN), configs=configs),
        claim("u3", fraction(1, compute="0"), configs=[ACCEPTS]),
    )
    for uid in ("u1", "u2", "u3"):
        assert prepared(node, uid) == ["gpu-0"]
    assert backends(node, "u3") == [backend]


def test_a_fraction_by_mps_beside_one_of_before_the_node_had_it(node: TestNode) -> None:
    node.fences = Has(NONE)
    node.claims.add(claim("u1", fraction(0), configs=[ACCEPTS]), claim("u2", fraction(1)))
    assert prepared(node, "u1") == ["gpu-0"]
    node.fences = Has(MPS)
    assert "claim default/u1:u1 uses gpu-0 without MPS" in waits_for(node, "u2", "u1")


@pytest.mark.parametrize("share_first", [True, False])
def test_a_device_as_a_whole_and_a_fraction_of_it(node: TestNode, share_first: bool) -> None:
    node.claims.add(claim("part", fraction(0)), claim("whole", result("gpu-0")))
    first, second = ("part", "whole") if share_first else ("whole", "part")
    assert prepared(node, first) == ["gpu-0"]
    assert isinstance(refused(node, second), DeviceInUse)


def test_a_fraction_of_a_mig_device_beside_another_mig_device(tmp_path: Path) -> None:
    one = mig_gpu(enabled=True, instances=(instance("1g.10gb", 0), instance("1g.10gb", 1)))
    machine, policy = Machine(VERSION, 12040, (one,)), MigPolicy((MigRule(mode=MigMode.STATIC),))
    node = node_with(tmp_path, MPS, on=machine, policy=policy)
    for start in (0, 1):
        node.fake_mig.by_hand(one.uuid, 19, start)
    first, second = (f"gpu-0-mig-1g10gb-19-{start}" for start in (0, 1))
    node.claims.add(claim("u1", fraction(0, "2Gi", "50", first)), claim("u2", result(second)))
    assert prepared(node, "u1") == [first]
    assert prepared(node, "u2") == [second]
    (group,) = node.supervisor.now()
    assert group.group.exclusive_gpus == ()


def test_admin_access_beside_a_fraction(node: TestNode) -> None:
    node.claims.add(claim("u1", fraction(0)), claim("u2", result("gpu-0", adminAccess=True)))
    node.claims.add(claim("u3", fraction(1)))
    for uid in ("u1", "u2", "u3"):
        assert prepared(node, uid) == ["gpu-0"]


# -- within a claim ----------------------------------------------------------------------------------------------------


def test_a_fraction_by_mps_beside_a_gpu_in_time_slices(node: TestNode) -> None:
    """Each for containers of its own, as with MPS of NVIDIA's kinds."""
    node.claims.add(claim("u1", fraction(0), result("gpu-1", "whole"), configs=[slices(["whole"])]))
    assert prepared(node, "u1") == ["gpu-0", "gpu-1"]


def test_a_fraction_by_mps_beside_a_gpu_through_mps(node: TestNode) -> None:
    node.claims.add(claim("u1", fraction(0), result("gpu-1", "whole"), configs=[mps(["whole"])]))
    error = refused(node, "u1")
    assert isinstance(error, UnsupportedConfig)
    assert "claim default/u1:u1 asks for two MPS groups" in str(error)
    assert "in two claims, each for containers of its own" in error.hint


@pytest.mark.parametrize("backend", [MPS, NONE])
def test_two_fractions_of_one_claim(tmp_path: Path, backend: SharingBackend) -> None:
    node = node_with(tmp_path, backend)
    node.claims.add(claim("u1", fraction(0), fraction(1, request="b", device="gpu-1"), configs=[ACCEPTS]))
    if backend is MPS:
        assert "which MPS fences on this node" in str(refused(node, "u1"))
    else:
        assert prepared(node, "u1") == ["gpu-0", "gpu-1"]
