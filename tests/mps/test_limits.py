"""How many clients an MPS server takes on which GPU."""

from __future__ import annotations

import pytest

from dra_driver.mps.limits import client_limit
from tests.devices.builders import gpu


@pytest.mark.parametrize(
    ("architecture", "limit"),
    [("Kepler", 16), ("Pascal", 16), ("Volta", 48), ("Turing", 48), ("Hopper", 48), ("one to come", 48)],
)
def test_the_limit_is_that_of_the_architecture(architecture: str, limit: int) -> None:
    assert client_limit(gpu(0, architecture=architecture)) == limit
