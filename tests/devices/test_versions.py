"""Versions as attributes: SemVer whatever NVML says."""

from __future__ import annotations

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.devices.model import Version
from dra_driver.devices.text import clip
from dra_driver.devices.versions import cuda_version_attribute, version_attribute


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("580.105.08", "580.105.8"),  # both recorded from NVIDIA's driver
        ("550.163.01", "550.163.1"),
        ("9.0", "9.0.0"),
        ("12", "12.0.0"),
        ("v1.2.3", "1.2.3"),
        ("000.0.00", "0.0.0"),
        (" 535.104.05\n", "535.104.5"),
        ("580.105.08-beta.1", "580.105.8+beta.1"),
        ("535.104.05.01", "535.104.5+01"),
        ("580.82 (open kernel)", "580.82.0+open.kernel"),
    ],
)
def test_becomes_strict_semver(text: str, version: str) -> None:
    assert version_attribute(text) == Version(version)
    semver.Version.parse(version)


def test_rest_of_a_version_does_not_count_when_versions_are_compared() -> None:
    left, right = version_attribute("580.105.08-beta.1"), version_attribute("580.105.08")
    assert isinstance(left, Version)
    assert isinstance(right, Version)
    assert semver.Version.parse(left.text).compare(right.text) == 0


@pytest.mark.parametrize("text", ["", "unknown", "r580", "-1.2"])
def test_what_is_no_number_stays_text(text: str) -> None:
    assert version_attribute(text) == text


@pytest.mark.parametrize(("number", "text"), [(13000, "13.0.0"), (12040, "12.4.0"), (12080, "12.8.0"), (0, "0.0.0")])
def test_cuda_versions(number: int, text: str) -> None:
    assert cuda_version_attribute(number) == Version(text)


@given(st.one_of(st.text(max_size=100), st.from_regex(r"\A[0-9.]{1,80}[-+ .a-z0-9]{0,80}\Z")))
def test_no_text_makes_an_attribute_that_the_server_refuses(text: str) -> None:
    value = version_attribute(text)
    if isinstance(value, Version):
        semver.Version.parse(value.text)
        assert len(value.text) <= 64
    else:
        assert len(value.encode()) <= 64


def test_text_is_clipped_between_characters() -> None:
    assert clip("é" * 40) == "é" * 32
    assert clip("x" + "é" * 40) == "x" + "é" * 31
    assert clip("short") == "short"
