from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cgroup_tree import DRIVER, plain_tree
from tests.kubelet_plugin.memory_fence.lab import Lab
from tests.simulated_node import NodeMaker, make_node

__all__ = ["make_node"]


@pytest.fixture
def lab(make_node: NodeMaker, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path, make_node("h100-sxm5-80gb", driver=DRIVER).state_file, plain_tree(tmp_path / "cgroup"))
    yield made
    made.close()
