"""What --dry-run prints."""

from __future__ import annotations

import yaml

from dra_driver.devices.model import DeviceSet
from dra_driver.slices.cutting import desired_slices
from dra_driver.slices.diff import plan_writes
from dra_driver.slices.render import render_plan
from tests.slices.builders import FEATURES, OWNER, SliceServer, whole


def test_slices_are_yaml_documents_in_the_order_of_the_api() -> None:
    plan = plan_writes(desired_slices(DeviceSet((whole(0),)), OWNER, FEATURES), [], owner=OWNER)
    text = render_plan(plan)
    assert list(yaml.safe_load_all(text)) == list(plan.creates)
    assert "\n---\napiVersion: resource.k8s.io/v1\nkind: ResourceSlice\nmetadata:\n" in text


def test_a_plan_says_what_is_done_with_each() -> None:
    desired = desired_slices(DeviceSet(tuple(map(whole, range(80)))), OWNER, FEATURES)
    create = plan_writes(desired, [], owner=OWNER)
    assert "# create ResourceSlice 00001-gpu.nvidia.com-node-0-* at generation 1\n---\n" in render_plan(create)
    server = SliceServer()
    server.apply(create)
    assert render_plan(plan_writes(desired, server.list(), owner=OWNER)) == (
        "# nothing to write: the pool is as desired at generation 1\n"
    )
    smaller = desired_slices(DeviceSet((whole(0),)), OWNER, FEATURES)
    text = render_plan(plan_writes(smaller, server.list(), owner=OWNER))
    assert "# delete ResourceSlice 00001-gpu.nvidia.com-node-0-00002 (uid uid-2)\n" in text
    assert "# update ResourceSlice 00000-gpu.nvidia.com-node-0-00001 at generation 2\n---\n" in text
    assert len(list(yaml.safe_load_all(text))) == 1
