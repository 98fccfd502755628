"""Durations in Go's notation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.duration import parse, render


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15),
        ("1m30s", 90),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("0s", 0),
        ("0", 0),
        ("2h0m1s", 7201),
        ("1m1ms", 60.001),
    ],
)
def test_parse(text: str, seconds: float) -> None:
    assert parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5S", "1d", "5s\n", "1e3s", "999999999h", "1h" * 40])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (0.25, "250ms"), (3600, "1h"), (3661.5, "1h1m1s500ms")]
)
def test_render(seconds: float, text: str) -> None:
    assert render(seconds) == text


@given(st.integers(min_value=0, max_value=366 * 24 * 3600 * 1000))
def test_what_is_rendered_is_read_back(milliseconds: int) -> None:
    assert parse(render(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
