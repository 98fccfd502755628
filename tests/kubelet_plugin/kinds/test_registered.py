"""That what is registered is also held apart."""

from __future__ import annotations

import tomllib
from pathlib import Path

from kubelet_plugin.prepare.kinds import Kinds
from tests.kubelet_plugin.prepare.node import TestNode

ROOT = Path(__file__).parents[3]


def test_import_linter_holds_every_registered_kind_apart(tmp_path: Path) -> None:
    kinds: Kinds = TestNode(tmp_path).kinds()
    rooms = {".".join(type(maker).__module__.split(".")[:3]) for maker in kinds.makers}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (apart,) = (each["modules"] for each in contracts if each["name"] == "kinds do not know each other")
    assert rooms == set(apart), "a kind of yours is missing in pyproject.toml"
