"""Fixtures of the prepare engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.prepare.node import TestNode


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    return TestNode(tmp_path)


@pytest.fixture
def engine(node: TestNode) -> Iterator[PrepareEngine]:
    engine = node.engine()
    yield engine
    engine.stop()
