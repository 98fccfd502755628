"""How long random runs and sweeps are: a share of them in ``make test``, all of it in ``make test-long``, as CI does.

Rounds in which real processes are killed at random take a second each: three in ``make test``, fifty in
``make test-long``, five hundred in ``make test-kills``. Whatever takes a share from here is named in the Makefile's
``LONG_TESTS``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROUNDS = int(os.environ.get("GPU_DRA_KILL_ROUNDS", "3"))
LONG = os.environ.get("GPU_DRA_LONG_TESTS") == "1"


def steps(full: int, share: int) -> int:
    """``full`` in a long run, else ``share``."""
    return full if LONG else share


def stride(share: int) -> int:
    """Of a sweep or a list of cases: every position in a long run, else each ``share``-th."""
    return steps(1, share)


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests are about processes that die, not about disks."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gpu-dra-test-", dir=memory) as folder:
        yield Path(folder)
