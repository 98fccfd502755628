"""Whatever has only a share of its runs in ``make test`` has all of them in ``make test-long``."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARES = re.compile(r"^from tests\.long_runs import .*\b(LONG|ROUNDS|steps|stride)\b", re.MULTILINE)


def test_every_share_is_played_in_full_somewhere() -> None:
    words = re.search(r"^LONG_TESTS := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words is not None
    long = [ROOT / each for each in words[1].replace("\\\n", " ").split()]
    assert all(each.exists() for each in long)
    shares = [file for file in (ROOT / "tests").rglob("test_*.py") if SHARES.search(file.read_text())]
    assert len(shares) > 10
    assert not [file for file in shares if not any(file.is_relative_to(each) for each in long)]
