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


LAYOUTS = """
    layouts:
      version: v1
      mig-configs:
        all-1g: [{devices: all, mig-enabled: true, mig-devices: {1g.10gb: 7}}]
        balanced: [{devices: [0], mig-enabled: true, mig-devices: {3g.40gb: 1}}, {devices: [1], mig-enabled: false}]
"""


def test_a_layout_is_for_static_gpus(tmp_path: Path) -> None:
    (rule,) = rules(tmp_path / "driver.yaml", "    - {layout: all-1g, mode: static}\n" + LAYOUTS)
    assert rule.layout == "all-1g"


def test_layouts_survive_the_way_through_a_file_and_are_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "driver.yaml"
    file.write_text(f"{HEAD}spec:\n  mig:{LAYOUTS}")
    mig = load(file, {}, {"log_level": "debug"}).spec.mig
    assert [entry.mig_enabled for entry in mig.layout("balanced")] == [True, False]
    assert mig.layout("all-1g")[0].wanted == {"1g.10gb": 7}


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        (LAYOUTS, 'spec.mig.rules[0].layout: there is no layout "all-2g", did you mean all-1g?'),
        ("", 'spec.mig.rules[0].layout: there is no layout "all-2g", layouts has none'),
    ],
)
def test_a_rule_that_asks_for_an_unknown_layout(tmp_path: Path, layouts: str, message: str) -> None:
    with pytest.raises(DecodeError) as refused:
        rules(tmp_path / "driver.yaml", "    - {layout: all-2g, mode: static}\n" + layouts)
    assert str(refused.value).endswith(message)
    with pytest.raises(DecodeError) as refused:
        rules(tmp_path / "driver.yaml", "    - {layout: mine, mode: static}\n" + LAYOUTS)
    assert str(refused.value).endswith('there is no layout "mine", there are: all-1g, balanced')
