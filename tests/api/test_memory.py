"""Memory quantities as configuration needs them."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from api.memory import MIB, MemoryLimit, in_bytes

_INTEGER, _TEXT = TypeAdapter(MemoryLimit).json_schema()["anyOf"]
PATTERN = _TEXT["pattern"]


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


@pytest.mark.parametrize("text", ["256Mi", "+1Gi", "1.5Gi", "0.5Gi", ".5Gi", "2000000k", "1e9", "010Mi", "10.0Mi"])
def test_the_schema_takes_what_a_limit_may_be(text: str) -> None:
    assert TypeAdapter(MemoryLimit).validate_python(text) == text
    assert re.search(PATTERN, text)


@pytest.mark.parametrize("text", ["0", "0Mi", "00.0Gi", "-1Gi", "-0", "", "Mi", "1K", "1 Gi"])
def test_the_schema_refuses_what_can_never_be_one(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(MemoryLimit).validate_python(text)
    assert not re.search(PATTERN, text)
