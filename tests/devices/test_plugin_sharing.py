"""What the device plugin's ConfigMap means for a node: which key, which resources, what is dropped."""

from __future__ import annotations

import pytest

from api.claim_config import SharingStrategy
from api.node_inventory import NodeSharing, SharedResource
from api.strict import DecodeError
from dra_driver.devices.plugin_sharing import profile_of, read_config_map, resource_name, rules_of
from dra_driver.devices.sharing import Replicas, SharingRule

FOUR = "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}"
TWO = FOUR.replace("4", "2")
TIME_SLICING, MPS = SharingStrategy.TIME_SLICING, SharingStrategy.MPS


def shared(replicas: int, **more: object) -> SharedResource:
    return SharedResource.model_validate(
        {"resource": "nvidia.com/gpu", "strategy": TIME_SLICING, "replicas": replicas, **more}
    )


@pytest.mark.parametrize(
    ("data", "label", "key", "replicas"),
    [
        ({"any": FOUR}, "", "any", [4]),  # the only one
        ({"a": FOUR, "default": TWO}, "", "default", [2]),
        ({"a": FOUR, "b": TWO}, "", "", []),
        ({}, "", "", []),
        ({"a": FOUR, "default": TWO}, "a", "a", [4]),
        ({"a": ""}, "a", "a", []),
    ],
)
def test_the_label_chooses_else_the_fallbacks(data: dict[str, str], label: str, key: str, replicas: list[int]) -> None:
    found = read_config_map(data, label)
    assert (found.key, [each.replicas for each in found.resources]) == (key, replicas)


@pytest.mark.parametrize(
    ("data", "label", "message"),
    [
        ({"tesla": FOUR}, "telsa", 'nvidia.com/device-plugin.config: the ConfigMap has no key "telsa", did you mean'),
        ({"b": FOUR, "a": FOUR}, "xyz", "there are: a, b"),
        ({}, "x", "the ConfigMap is empty"),
        ({"any": FOUR.replace("4", "1")}, "", "key any: sharing.timeSlicing.resources[0].replicas: must be at least 2"),
        ({"any": "a: ["}, "", "key any: is not YAML"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_which_and_why(data: dict[str, str], label: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_config_map(data, label)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("block", "one_per_request"),
    [("timeSlicing", False), ("mps", True)],
)
def test_more_than_one_share_is_refused_by_default_with_mps_only(block: str, one_per_request: bool) -> None:
    text = FOUR.replace("timeSlicing", block)
    assert [each.one_per_request for each in read_config_map({"k": text}, "").resources] == [one_per_request]
    said = text.replace("resources", f"failRequestsGreaterThanOne: {not one_per_request}, resources".lower(), 1)
    said = said.replace("failrequestsgreaterthanone", "failRequestsGreaterThanOne")
    assert [each.one_per_request for each in read_config_map({"k": said}, "").resources] == [not one_per_request]


def test_mps_goes_before_time_slicing_and_that_is_told() -> None:
    text = """
sharing:
  timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}
  mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}
"""
    found = read_config_map({"any": text}, "")
    assert found.resources == (shared(2, strategy=MPS, one_per_request=True),)
    assert found.dropped == ("sharing.timeSlicing is ignored, since sharing.mps goes before it",)


def test_what_the_device_plugin_drops_is_dropped_and_told() -> None:
    text = """
resources: {gpus: [{pattern: "*", name: nvidia.com/h100}]}
sharing:
  timeSlicing:
    resources:
    - {name: nvidia.com/gpu, rename: nvidia.com/half, devices: [0], replicas: 2}
    - {name: nvidia.com/h100, replicas: 2}
"""
    found = read_config_map({"any": text}, "")
    assert found.resources[0] == shared(2)
    assert [each.partition(" ")[0] for each in found.dropped] == [
        "resources",
        "sharing.timeSlicing.resources[0].rename",
        "sharing.timeSlicing.resources[0].devices",
        "sharing.timeSlicing.resources[1].name:",
    ]


def test_the_default_rename_is_no_dropped_one() -> None:
    text = """
sharing:
  timeSlicing:
    renameByDefault: true
    resources: [{name: nvidia.com/gpu, rename: nvidia.com/gpu.shared, replicas: 2}]
"""
    found = read_config_map({"any": text}, "")
    assert (found.resources, found.dropped) == ((shared(2, renamed=True),), ())


@pytest.mark.parametrize(
    "profile", ["1g.10gb", "1g.10gb+me", "1g.10gb+me.all", "4g.48gb+gfx", "7g.80gb-me", "1c.3g.40gb"]
)
def test_resource_names_of_mig_profiles_are_read_back(profile: str) -> None:
    assert profile_of(resource_name(profile)) == profile


@pytest.mark.parametrize("name", ["nvidia.com/gpu", "nvidia.com/mig-", "nvidia.com/mig-small", "nvidia.com/1g.10gb"])
def test_other_resources_are_of_no_profile(name: str) -> None:
    assert profile_of(name) is None


def test_what_is_in_force_becomes_rules() -> None:
    resources = [shared(4, one_per_request=True), shared(3, resource="nvidia.com/mig-1g.10gb.me", renamed=True)]
    in_force = NodeSharing(source="x", resources=[*resources, shared(2, resource="nvidia.com/h100")])
    assert rules_of(in_force) == (
        SharingRule(Replicas(TIME_SLICING, 4, one_per_request=True)),
        SharingRule(Replicas(TIME_SLICING, 3, renamed=True), mig_profile="1g.10gb+me"),
    )
    assert rules_of(None) == ()
