"""An engine on a test's ``node``."""

from __future__ import annotations

import pytest

from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode


@pytest.fixture
def engine(node: SimulatedNode, engines: list[PrepareEngine]) -> PrepareEngine:
    engines.append(node.engine())
    return engines[0]
