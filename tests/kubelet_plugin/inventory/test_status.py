"""What a NodeInventory status says, and the patch from one to the next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.node_inventory import NodeInventoryStatus, Registration
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import GpuProblem
from kubelet_plugin.endpoint.connection import RegistrationState
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.inventory.status import (
    PluginInstance,
    build_status,
    hardware_condition,
    merge_patch,
    registration_block,
    registration_condition,
    with_times,
)

EMPTY = Machine("580.105.08", 13000)
json_values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


def apply(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply(result.get(key), value)
    return result


@given(json_objects, json_objects)
def test_the_patch_leads_from_one_to_the_other(present: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert apply(present, merge_patch(present, wanted)) == wanted


@given(json_objects)
def test_nothing_changed_is_an_empty_patch(value: dict[str, Any]) -> None:
    assert merge_patch(value, value) == {}


@pytest.mark.parametrize(
    ("state", "status", "reason", "text"),
    [
        (HardwareState(), "Unknown", "NotReadYet", "has not ended"),
        (HardwareState(True, None, "no libnvidia-ml.so.1"), "False", "HardwareUnavailable", "no libnvidia-ml.so.1"),
        (HardwareState(True, EMPTY), "False", "NoGpus", "driver 580.105.08 runs here and counts no GPU"),
        (
            HardwareState(True, EMPTY, "", (GpuProblem(3, "GPU-3", None, True, "GPU is lost"),)),
            "False",
            "GpuUnreadable",
            "GPU 3: GPU is lost",
        ),
        (HardwareState(True, EMPTY, "x" * 3000), "False", "HardwareUnavailable", "..."),
    ],
)
def test_the_hardware_condition_says_what_is_wrong(state: HardwareState, status: str, reason: str, text: str) -> None:
    condition = hardware_condition(state)
    assert (condition.status, condition.reason) == (status, reason)
    assert text in condition.message
    assert len(condition.message) <= 1024


def test_the_registration_condition_says_what_the_kubelet_said() -> None:
    assert registration_condition(RegistrationState(1, True), "/r").status == "True"
    refused = registration_condition(RegistrationState(0, False, 3, "no common version"), "/r")
    assert (refused.reason, refused.message) == ("Refused", "the kubelet refused this plugin: no common version")
    silent = registration_condition(RegistrationState(), "/var/lib/kubelet/plugins_registry")
    assert silent.reason == "NotAsked"
    assert "/var/lib/kubelet/plugins_registry" in silent.message


def test_the_registration_block_names_the_writer() -> None:
    block = registration_block(PluginInstance("pod-uid", "1.2.3"), RegistrationState(2, True)).to_wire()
    assert block == {
        "pluginInstance": "pod-uid",
        "pluginVersion": "1.2.3",
        "registered": True,
        "registrations": 2,
    }


def test_every_field_of_a_status_is_written() -> None:
    condition = registration_condition(RegistrationState(1, True), "/r")
    status = build_status(HardwareState(True, EMPTY), Registration(), condition, "c-1")
    assert set(status.to_wire()) == set(NodeInventoryStatus.model_fields)
    block = registration_block(PluginInstance("pod-uid", "1.2.3"), RegistrationState(2, True)).to_wire()
    assert set(block) == {field.alias for field in Registration.model_fields.values()}


def test_what_an_earlier_version_wrote_and_nobody_read_goes_with_the_next_write() -> None:
    block = registration_block(PluginInstance("pod-uid", "1.2.3"), RegistrationState(2, True))
    wanted = build_status(HardwareState(True, EMPTY), block, None, None).to_wire()
    health = [{"uuid": "GPU-a", "state": "Unhealthy", "reason": "Unreadable"}]
    present = {**wanted, "registration": {**wanted["registration"], "bootID": "boot"}, "health": health}
    assert merge_patch(present, wanted) == {"registration": {"bootID": None}, "health": None}


def test_a_time_moves_only_with_its_status() -> None:
    present = {"conditions": [{"type": "A", "status": "True", "lastTransitionTime": "then"}]}
    same = with_times({"conditions": [{"type": "A", "status": "True"}]}, present, "now")
    assert same["conditions"][0]["lastTransitionTime"] == "then"
    other = with_times(
        {"conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}]}, present, "now"
    )
    assert [condition["lastTransitionTime"] for condition in other["conditions"]] == ["now", "now"]


def test_conditions_of_the_controller_stay() -> None:
    theirs = {"type": "FullyPublished", "status": "False", "lastTransitionTime": "then"}
    ours = {"type": "HardwareReady", "status": "True", "lastTransitionTime": "then"}
    wanted = {"conditions": [{"type": "HardwareReady", "status": "False"}]}
    assert with_times(wanted, {"conditions": [ours, theirs]}, "now") == {
        "conditions": [{"type": "HardwareReady", "status": "False", "lastTransitionTime": "now"}, theirs]
    }
