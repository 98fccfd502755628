from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.sweeps import Sweeps, running


@pytest.fixture(scope="module")
def sweeps() -> Iterator[Sweeps]:
    with running() as sweeps:
        yield sweeps
