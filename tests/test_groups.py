"""Tests that share a server run in one worker. pytest-xdist says nothing when it does not keep its groups together."""

from __future__ import annotations

import os

import pytest

pytestmark = [
    pytest.mark.xdist_group("groups"),
    pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there are no workers"),
]


def test_a_group_is_told_to_the_scheduler(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@groups")
