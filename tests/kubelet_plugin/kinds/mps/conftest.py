"""A simulated node of three H100, with MPS from a supervisor that runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode, first_gpus

GATES = frozenset(("MPSSupport", "TimeSlicingSettings"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SimulatedNode]:
    node = SimulatedNode(tmp_path, first_gpus("h100-sxm5-80gb", 3))
    node.gates = GATES
    yield node
    node.close()
