"""``spec.mig``: what it accepts and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.driver_config import load
from api.mig_policy import MigMode, MigRuleSettings
from api.strict import DecodeError

HEAD = "apiVersion: gpu-dra.dev/v1alpha1\nkind: DriverConfiguration\n"


def rules(file: Path, text: str) -> list[MigRuleSettings]:
    file.write_text(f"{HEAD}spec:\n  mig:\n    rules:\n{text}")
    return load(file, {}, {}).spec.mig.rules


def test_a_rule_in_full(tmp_path: Path) -> None:
    (rule,) = rules(
        tmp_path / "driver.yaml",
        """
    - selector:
        nodes: ["gpu-*"]
        products: ["NVIDIA H100*"]
        architectures: [Hopper]
        uuids: [GPU-1]
        minors: [0, 3]
      mode: dynamic
      partialComputeInstances: true
      adoptForeign: true
      keepMode: true
""",
    )
    assert (rule.selector.nodes, rule.selector.minors) == (["gpu-*"], [0, 3])
    assert (rule.mode, rule.partial_compute_instances, rule.adopt_foreign) == (MigMode.DYNAMIC, True, True)
    assert rule.keep_mode


@pytest.mark.parametrize("written", ["off", '"off"', "Off", "false"])
def test_an_unquoted_off_is_off_although_yaml_reads_false(tmp_path: Path, written: str) -> None:
    (rule,) = rules(tmp_path / "driver.yaml", f"    - mode: {written}\n")
    assert rule.mode is MigMode.OFF


def test_an_empty_rule_leaves_every_default(tmp_path: Path) -> None:
    assert rules(tmp_path / "driver.yaml", "    - {}\n") == [MigRuleSettings()]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("mode: dynamc", 'spec.mig.rules[0].mode: must be one of dynamic, static, off, not "dynamc", did you mean'),
        ("mode: true", "spec.mig.rules[0].mode: must be one of"),
        ("mod: off", "spec.mig.rules[0].mod: unknown field, did you mean mode?"),
        ("selector: {node: [a]}", "spec.mig.rules[0].selector.node: unknown field, did you mean nodes?"),
        ("selector: {nodes: a}", "spec.mig.rules[0].selector.nodes: must be a list"),
        ('selector: {nodes: [""]}', "spec.mig.rules[0].selector.nodes[0]"),
        ("selector: {minors: [-1]}", "spec.mig.rules[0].selector.minors[0]"),
        ('selector: {minors: ["0"]}', "spec.mig.rules[0].selector.minors[0]"),
        ("adoptForeign: 1", "spec.mig.rules[0].adoptForeign: must be true or false"),
        ("layout: all-1g", "spec.mig.rules[0]: a layout needs mode: static"),
        ("{layout: all-1g, mode: off}", "spec.mig.rules[0]: a layout needs mode: static"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(DecodeError) as refused:
        rules(tmp_path / "driver.yaml", f"    - {rule}\n")
    assert message in str(refused.value)


def test_a_layout_is_for_static_gpus(tmp_path: Path) -> None:
    (rule,) = rules(tmp_path / "driver.yaml", "    - {layout: all-1g, mode: static}\n")
    assert rule.layout == "all-1g"
