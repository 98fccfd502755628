"""SemVer order and parsing, with the example chain of semver.org."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dra_driver.allocator.semver import SemVer

ASCENDING = [
    "0.0.1",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.2.10",
    "535.104.5",
    "580.65.6",
    "580.105.8",
]


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(ASCENDING)))
def test_order(lower: str, higher: str) -> None:
    assert SemVer.parse(lower) < SemVer.parse(higher)
    assert SemVer.parse(higher) > SemVer.parse(lower)


@pytest.mark.parametrize("text", [*ASCENDING, "1.0.0-a.b+c.d"])
def test_text_survives(text: str) -> None:
    assert str(SemVer.parse(text)) == text


def test_build_metadata_does_not_count() -> None:
    assert SemVer.parse("1.0.0+a") == SemVer.parse("1.0.0+b")
    assert hash(SemVer.parse("1.0.0+a")) == hash(SemVer.parse("1.0.0"))


@pytest.mark.parametrize("text", ["", "1", "1.2", "v1.2.3", "1.02.3", "1.2.3.4", "1.2.3-", "1.2.3-01", "12.4", "a.b.c"])
def test_what_is_not_strict_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a semantic version"):
        SemVer.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("v580.105.08", "580.105.8"), ("12.4", "12.4.0"), ("1", "1.0.0"), ("v1.2.3-rc.1+x", "1.2.3-rc.1+x")],
)
def test_normalized(text: str, expected: str) -> None:
    assert str(SemVer.parse_tolerant(text)) == expected


@pytest.mark.parametrize("text", ["", "v", "1.2-rc", "1.2.3.4", "x.y.z"])
def test_what_cannot_be_normalized(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        SemVer.parse_tolerant(text)
