"""Reading a claim: what is taken from the allocation, and what is left to others."""

from __future__ import annotations

from kubelet_plugin.claims.allocated import AllocatedDevice, ConfigSource, check_claim
from kubelet_plugin.claims.model import ClaimRef
from tests.kubelet_plugin.prepare.node import DRIVER, NODE, claim, config, opaque, ref, result


def test_a_claim_without_a_name_is_told_by_its_uid() -> None:
    """NVIDIA's driver keeps no names; a claim of its was told as ``/:uid``."""
    assert str(ClaimRef("default", "trainer", "u1")) == "default/trainer:u1"
    assert str(ClaimRef("", "", "u1")) == "u1"


def test_devices_in_allocation_order() -> None:
    stored = claim(
        "u1",
        result("gpu-1", "b/x", shareID="s", adminAccess=True),
        {**result("gpu-9"), "driver": "other.example"},
        result("gpu-0", "a"),
    )
    found = check_claim(stored, ref("u1"), DRIVER, NODE)
    assert found.devices == (
        AllocatedDevice("b/x", NODE, "gpu-1", "s", admin_access=True),
        AllocatedDevice("a", NODE, "gpu-0"),
    )
    assert [device.parent_request for device in found.devices] == ["b", "a"]
    assert found.configs == ()


def test_configs_of_this_driver_keep_their_place() -> None:
    configs = [
        opaque({"x": 1}, driver="other.example"),
        opaque(config(), ["a"], source="FromClass"),
        opaque(config(), source="FromClaim"),
        {"source": "FromClaim"},
    ]
    found = check_claim(claim("u1", result("gpu-0"), configs=configs), ref("u1"), DRIVER, NODE).configs
    assert [(entry.index, entry.source, entry.requests) for entry in found] == [
        (1, ConfigSource.CLASS, ("a",)),
        (2, ConfigSource.CLAIM, ()),
    ]
