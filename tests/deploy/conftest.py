"""Tests that need helm are skipped where it is missing, once, with where it was looked for."""

from __future__ import annotations

import pytest

from tests.deploy import helm


@pytest.fixture(scope="session")
def needs_helm() -> None:
    if helm.find_helm() is None:
        pytest.skip(helm.MISSING)


@pytest.fixture(scope="session")
def default(needs_helm: None) -> helm.Rendered:
    return helm.render()


@pytest.fixture(scope="session")
def simulated(needs_helm: None) -> helm.Rendered:
    return helm.render("--set", "simulated.enabled=true")
