"""Engines on a test's ``node``; those in ``engines`` are stopped at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode


@pytest.fixture
def engines() -> Iterator[list[PrepareEngine]]:
    started: list[PrepareEngine] = []
    yield started
    for engine in started:
        engine.stop()


@pytest.fixture
def engine(node: SimulatedNode, engines: list[PrepareEngine]) -> PrepareEngine:
    engines.append(node.engine())
    return engines[0]
