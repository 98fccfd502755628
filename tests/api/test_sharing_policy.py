"""``spec.sharing``: what it accepts and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.claim_config import SharingStrategy
from api.driver_config import decode, load
from api.sharing_policy import SharingSettings
from api.strict import DecodeError


def settings(sharing: Any) -> SharingSettings:
    return decode({"spec": {"sharing": sharing}}).spec.sharing


def test_by_default_the_config_map_of_nvidias_documentation_is_read_and_nothing_is_shared() -> None:
    default = decode({}).spec.sharing
    assert (default.device_plugin_config.namespace, default.device_plugin_config.name) == (
        "gpu-operator",
        "time-slicing-config",
    )
    assert default.rules == []


@pytest.mark.parametrize(
    ("given", "taken"),
    [("", ""), ("disabled", ""), ("unlimited", "unlimited"), (" memory ", "memory"), (4, "4"), ("8", "8")],
)
def test_nvidias_switch_for_all_devices(given: object, taken: str) -> None:
    assert settings({"consumableShares": given}).consumable_shares == taken


def test_nvidias_switch_by_its_flag_and_variable() -> None:
    assert load(None, {"CONSUMABLE_SHARES": "memory"}, {}).spec.sharing.consumable_shares == "memory"
    assert load(None, {}, {"consumable_shares": "16"}).spec.sharing.consumable_shares == "16"


def test_a_rule_for_fractions() -> None:
    plain, fine = settings({"rules": [{"fractions": {}}, {"fractions": {"memoryStep": "1Gi", "computeStep": 5}}]}).rules
    assert plain.replicas is None
    assert plain.fractions is not None
    assert (plain.fractions.memory_step, plain.fractions.compute_step) == ("256Mi", 1)
    assert fine.fractions is not None
    assert (fine.fractions.memory_step, fine.fractions.compute_step) == ("1Gi", 5)


def test_which_config_map_is_read_can_be_said_by_flag_and_variable() -> None:
    config = load(None, {"DEVICE_PLUGIN_CONFIG_NAMESPACE": "gpus"}, {"device_plugin_config_name": "plugin"})
    read = config.spec.sharing.device_plugin_config
    assert (read.namespace, read.name) == ("gpus", "plugin")
    assert load(None, {}, {"device_plugin_config_name": ""}).spec.sharing.device_plugin_config.name == ""


def test_a_rule_in_full(tmp_path: Path) -> None:
    file = tmp_path / "driver.yaml"
    file.write_text(
        """
apiVersion: gpu-dra.dev/v1alpha1
kind: DriverConfiguration
spec:
  sharing:
    rules:
    - selector: {products: ["NVIDIA A100*"], minors: [0]}
      migProfile: 1g.5gb
      strategy: MPS
      replicas: 3
      renameByDefault: true
      failRequestsGreaterThanOne: false
    - replicas: 2
"""
    )
    full, short = load(file, {}, {}).spec.sharing.rules
    assert (full.mig_profile, full.strategy, full.replicas) == ("1g.5gb", SharingStrategy.MPS, 3)
    assert full.rename_by_default
    assert full.fail_requests_greater_than_one is False
    assert (short.mig_profile, short.strategy) == (None, SharingStrategy.TIME_SLICING)
    assert short.fail_requests_greater_than_one is None


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ({"rules": [{}]}, "spec.sharing.rules[0]: must have either replicas or fractions, such as"),
        (
            {"rules": [{"replicas": 2, "fractions": {}}]},
            "spec.sharing.rules[0]: must have either replicas or fractions",
        ),
        (
            {"rules": [{"fractions": {}, "strategy": "MPS", "renameByDefault": True}]},
            "spec.sharing.rules[0]: strategy, renameByDefault cannot be set together with fractions",
        ),
        ({"rules": [{"fractions": {"memoryStep": "1500k"}}]}, 'fractions.memoryStep: must be whole Mi, not "1500k"'),
        ({"rules": [{"fractions": {"memoryStep": "1Ki"}}]}, "fractions.memoryStep: must be at least 1Mi"),
        ({"rules": [{"fractions": {"computeStep": 0}}]}, "fractions.computeStep: must be at least 1, not 0"),
        ({"rules": [{"fractions": {"memory": "1Gi"}}]}, "fractions.memory: unknown field"),
        ({"consumableShares": "all"}, "consumableShares: must be empty, disabled, unlimited, memory, or a number"),
        ({"consumableShares": 0}, "consumableShares: must be empty, disabled, unlimited, memory, or a number"),
        ({"consumableShares": ["memory"]}, "consumableShares: must be empty, disabled, unlimited, memory, or a number"),
        ({"rules": [{"replicas": 1}]}, "spec.sharing.rules[0].replicas: must be at least 2, not 1"),
        ({"rules": [{"replicas": 2, "strategy": "mps"}]}, "strategy: must be one of TimeSlicing, MPS"),
        ({"rules": [{"replicas": 2, "migProfile": "1g"}]}, 'migProfile: must be a MIG profile, not "1g", such as'),
        ({"rules": [{"replicas": 2, "selector": {"node": []}}]}, "did you mean nodes?"),
        ({"devicePluginConfig": {"namespace": ""}}, "namespace: must be the name of a namespace"),
        ({"devicePluginConfig": {"name": "a b"}}, "name: must be the name of a ConfigMap, or empty"),
        ({"devicePluginConfig": {"key": "any"}}, "devicePluginConfig.key: unknown field"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(sharing: Any, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        settings(sharing)
    assert message in str(caught.value)
