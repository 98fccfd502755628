"""Runs a sweep in a process of its own, because it forks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.programs import fork


def run(sweep: str, *arguments: str) -> list[int]:
    """The numbers that ``python -m tests.crash.<sweep>`` prints. It fails with what the sweep says when that fails."""
    with tempfile.TemporaryDirectory(prefix="gd-sweep-") as folder:
        output, errors = Path(folder, "out"), Path(folder, "errors")
        process = fork(f"tests.crash.{sweep}", arguments, os.environ, output, errors)
        try:
            code = process.wait()
        finally:
            process.kill()
        assert code == 0, errors.read_text()[-4000:]
        return [int(number) for number in output.read_text().split()]
