"""A request for what no device has is told what devices have: a MIG profile of another product, say."""

from __future__ import annotations

import pytest

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.reasons import Failure, explain
from tests.allocator.builders import DRIVER, allocated, claim, device_class, request, resource_slice

MIG = device_class("mig", f"device.attributes['{DRIVER}'].type == 'mig'")


def part(profile: str, number: int) -> Obj:
    attributes = {"type": {"string": "mig"}, "profile": {"string": profile}, "number": {"int": number}}
    return {"name": f"mig-{profile}-{number}", "attributes": attributes}


def reason(expression: str, *held: Obj, devices: list[Obj] | None = None) -> str:
    whole: Obj = {"name": "gpu-0", "attributes": {"type": {"string": "gpu"}, "profile": {"string": "none"}}}
    slices = [resource_slice("n", devices or [whole, part("1g", 0), part("1g", 1), part("2g", 0)])]
    snapshot = Snapshot.from_objects(slices, [MIG], held)
    wanted = parse_claim(claim("c", request("r", expression, class_name="mig")))
    outcome = Allocator(CelEngine(), snapshot).allocate(Node("n"), [wanted])
    assert isinstance(outcome, Failure)
    return explain({"n": outcome, "m": outcome})


@pytest.mark.parametrize(
    "expression",
    [
        f"device.attributes['{DRIVER}'].profile == '3g'",
        f'"3g" == device.attributes["{DRIVER}"]["profile"]',
        f"device.attributes[ '{DRIVER}' ] . profile in ['3g', '4g']",
    ],
)
def test_values_are_listed_once(expression: str) -> None:
    assert reason(expression).endswith(f"6 fail selector `{expression}`, profile is one of 1g, 2g")


def test_values_are_not_listed_where_some_device_has_what_is_asked() -> None:
    held = allocated(claim("old", request()), ("n", "mig-2g-0"))
    assert "is one of" not in reason(f"device.attributes['{DRIVER}'].profile == '2g'", held)


def test_numbers_and_long_lists_are_not_listed() -> None:
    assert "is one of" not in reason(f"device.attributes['{DRIVER}'].number == 7")
    many = [part(f"p{number}", number) for number in range(30)]
    assert "is one of" not in reason(f"device.attributes['{DRIVER}'].profile == 'x'", devices=many)
