"""Reading a claim: what is taken from the allocation, and what is left to others."""

from __future__ import annotations

from dra_driver.kube.interface import Obj
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


def _as_allocated(asked: list[Obj], written: list[Obj], *requests: str) -> list[tuple[str, ...]]:
    """The requests of each configuration of a claim: ``asked`` is its spec, ``written`` its allocation."""
    stored = claim("u1", *(result(f"gpu-{at}", name) for at, name in enumerate(requests)), configs=written)
    stored["spec"] = {"devices": {"config": [{k: v for k, v in entry.items() if k != "source"} for entry in asked]}}
    return [entry.requests for entry in check_claim(stored, ref("u1"), DRIVER, NODE).configs]


def test_requests_that_the_scheduler_leaves_out_are_those_of_the_spec() -> None:
    """kube-scheduler 1.37 clears ``requests`` of a configuration that is for every request of the claim."""
    gpu, mig, of_class = opaque(config()), opaque(config("MigDeviceConfig")), opaque(config(), source="FromClass")
    assert _as_allocated([opaque(config(), ["gpu"])], [gpu], "gpu") == [("gpu",)]
    assert _as_allocated([opaque(config(), ["a", "b"]), mig], [of_class, gpu, mig], "a", "b") == [(), ("a", "b"), ()]
    assert _as_allocated([gpu], [gpu], "gpu") == [()]


def test_an_alternative_that_was_not_chosen_lends_its_name_to_nobody() -> None:
    same = opaque(config())
    asked = [opaque(config(), ["gpu/slice"]), opaque(config(), ["gpu/whole"]), opaque(config(), ["gpu"])]
    assert _as_allocated(asked, [same, same], "gpu/whole") == [("gpu/whole",), ("gpu",)]


def test_an_allocation_that_is_no_copy_of_the_spec_is_taken_as_it_is() -> None:
    other = opaque(config("MigDeviceConfig"))
    assert _as_allocated([opaque(config(), ["gpu"])], [other], "gpu") == [()]
    assert _as_allocated([opaque(config(), ["gpu"])], [], "gpu") == []
