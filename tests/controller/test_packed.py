"""Packed objects are what they were, and take little memory."""

from __future__ import annotations

import json
import marshal

from controller.packed import pack, unpack
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import Obj
from tests.controller.world import World


def published(world: World, machine: Machine) -> list[Obj]:
    world.add_node("n1", machine)
    world.start_controller()
    world.published("n1", 8 * 26)
    return world.slices("n1")


def test_slices_are_unpacked_as_they_were_and_are_small_while_packed(world: World, h100: Machine) -> None:
    slices = published(world, h100)
    packed = [pack(each, {"spec": {"pool": each["spec"]["pool"]}}) for each in slices]
    assert [unpack(each) for each in packed] == slices
    for whole, small in zip(slices, packed, strict=True):
        assert small["spec"] == {"pool": whole["spec"]["pool"]}
        assert small["metadata"] == {key: whole["metadata"][key] for key in ("name", "uid", "resourceVersion")}
    assert sum(len(marshal.dumps(each)) for each in packed) * 8 < sum(len(json.dumps(each)) for each in slices)


def test_each_look_gets_an_object_of_its_own() -> None:
    packed = pack({"metadata": {"name": "n1"}, "spec": {"list": [1]}}, {})
    unpack(packed)["spec"]["list"].append(2)
    assert unpack(packed)["spec"] == {"list": [1]}
