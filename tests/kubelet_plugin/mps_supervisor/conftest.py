"""Fixtures: a lab with a short name, which leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dra_driver.simulation.hardware import uninstall
from tests.kubelet_plugin.fakes import short_folder
from tests.kubelet_plugin.mps_supervisor.lab import NAMED_DRIVER, Lab


@pytest.fixture
def named() -> Iterator[Lab]:
    """A lab whose driver knows MPS protocol 3."""
    with short_folder() as folder:
        made = Lab(folder, driver=NAMED_DRIVER)
        try:
            yield made
        finally:
            made.close()
            uninstall()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with short_folder() as folder:
        made = Lab(folder)
        try:
            yield made
        finally:
            made.close()
            uninstall()
