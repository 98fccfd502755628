"""Memory quantities as configuration needs them."""

from __future__ import annotations

import pytest

from api.memory import MIB, in_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1Mi", MIB),
        ("10Gi", 10 * 1024 * MIB),
        ("1.5Gi", 1536 * MIB),
        ("1E", 10**18),
        ("1Ei", 1024**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-3", 1),
        ("1500m", 2),
        ("1n", 1),
        ("+5k", 5000),
        ("-5k", -5000),
        ("-1500m", -1),
        (".5Ki", 512),
        ("5.", 5),
        ("0", 0),
        ("1e99", 10**99),
    ],
)
def test_quantities(text: str, expected: int) -> None:
    assert in_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "Mi", "1 Gi", " 1Gi", "1Gi ", "1K", "1KB", "1GiB", "1gi", "1e", "1e1.5", "1e100", "1e999999999", "0x10",
     "1_000", "NaN", "Infinity", "--1", "1Mi\n", "١Gi", "1" * 65, "."],
)  # fmt: skip
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError):
        in_bytes(text)
