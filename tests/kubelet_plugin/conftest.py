"""Fixtures of the plugin's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.fakes import short_folder


@pytest.fixture
def root() -> Iterator[Path]:
    """A kubelet's root folder with a short name."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def engines() -> Iterator[list[PrepareEngine]]:
    """What a test puts in is stopped at its end."""
    started: list[PrepareEngine] = []
    yield started
    for engine in started:
        engine.stop()
