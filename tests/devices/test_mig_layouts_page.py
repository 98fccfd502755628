"""The example of docs/user/mig-layouts.md is accepted and fits the GPUs that it names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from api.driver_config import decode
from api.mig_policy import MigMode
from dra_driver.devices.configured import device_policy
from dra_driver.devices.mig_layout import LayoutPlan, entry_for, plan_layout
from tests.devices.recorded import recorded_gpu

PAGE = (Path(__file__).parents[2] / "docs/user/mig-layouts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("machine", "index", "devices"),
    [
        ("a100-sxm4-40gb", 7, {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}),
        ("h100-sxm5-80gb", 3, {"3g.40gb": 2}),
        ("h100-sxm5-80gb", 4, None),
    ],
)
def test_the_example(machine: str, index: int, devices: dict[str, int] | None) -> None:
    match = re.search(r"<!-- tested: layouts -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    spec = decode(yaml.safe_load(match[1])).spec
    gpu = replace(recorded_gpu(machine), index=index)
    policy = device_policy(spec).mig.for_gpu("inference-3", gpu)
    assert (policy.mode, policy.layout) == (MigMode.STATIC, "balanced")
    entry = entry_for(spec.mig.layout(policy.layout), gpu)
    assert entry is not None
    assert entry.mig_enabled == (devices is not None)
    if devices is not None:
        plan = plan_layout(gpu, entry.wanted)
        assert isinstance(plan, LayoutPlan)
        made = [each.profile.name for each in plan.create]
        assert {profile: made.count(profile) for profile in made} == devices
