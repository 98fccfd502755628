"""What docs/user/mig.md says about modes, rules and taints is so."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from api.driver_config import decode
from api.mig_policy import MigMode
from controller.mig_problems import mig_problems
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.configured import device_policy
from dra_driver.devices.model import DeviceSet
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.hardware.model import Gpu, MigPlacement, RefusedPlacement
from tests.devices.builders import machine
from tests.devices.mig_gpus import A100, AMPERE, instance, mig_gpu

PAGE = (Path(__file__).parents[2] / "docs" / "user" / "mig.md").read_text()


def example(name: str) -> str:
    """The YAML block that follows the page's mark ``<!-- tested: name -->``."""
    match = re.search(rf"<!-- tested: {name} -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    return match[1]


def a100(minor: int, *, enabled: bool) -> Gpu:
    made = (instance("2g.10gb", 2, of=A100),) if enabled else ()
    return mig_gpu(minor, A100, enabled=enabled, instances=made, product_name="NVIDIA A100-SXM4-40GB", **AMPERE)


def test_the_example_of_rules_does_what_its_comments_say() -> None:
    policy = device_policy(decode(yaml.safe_load(example("rules"))).spec)

    def names(node: str, *gpus: Gpu) -> list[str]:
        return [device.name for device in allocatable_devices(machine(*gpus), policy, node).devices]

    assert names("training-1", mig_gpu(0), mig_gpu(1)) == ["gpu-0", "gpu-1"]
    assert names("a100-1", a100(0, enabled=True), a100(5, enabled=False)) == ["gpu-0-mig-2g10gb-14-2", "gpu-5"]
    hopper = names("h100-1", mig_gpu(0))
    assert {"gpu-0", "gpu-0-mig-1g10gb-19-6", "gpu-0-mig-1c3g40gb-9-0-c0"} <= set(hopper)
    assert policy.mig.for_gpu("h100-1", mig_gpu(0)).keep_mode


def test_every_taint_and_event_is_on_the_page() -> None:
    foreign = (instance("1g.10gb", 0, foreign=True),)
    refused = (RefusedPlacement(9, MigPlacement(4, 4), "why"),)
    rules = DevicePolicy(mig=MigPolicy((MigRule(mode=MigMode.DYNAMIC),)))
    dynamic = machine(mig_gpu(enabled=True, instances=foreign, refused=refused))
    off = DevicePolicy(mig=MigPolicy((MigRule(mode=MigMode.OFF),)))
    reasons = {problem.reason for problem in (*mig_problems(dynamic, rules, ""), *mig_problems(dynamic, off, ""))}
    offered: DeviceSet = allocatable_devices(dynamic, rules)
    keys = {taint.key for device in offered.devices for taint in device.taints}
    rows = re.findall(r"^\| (?:`(\S+)`)? ?\| (\w+) \|", PAGE.partition("## Taints and Events")[2], re.MULTILINE)
    assert {key for key, _ in rows if key} == keys
    assert {reason for _, reason in rows} - {"Event"} == reasons


def test_the_page_names_every_mode() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == {mode.value for mode in MigMode}
