"""A node whose claims change hands: NVIDIA's files beside ours, on simulated H100s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubelet_plugin.takeover.changing_node import ChangingNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ChangingNode]:
    node = ChangingNode(tmp_path)
    yield node
    node.close()
