from __future__ import annotations

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.hardware.versions import compute_capability, cuda_version, driver_version


@pytest.mark.parametrize(
    ("reported", "published"),
    [
        ("580.105.08", "580.105.8"),
        ("550.163.01", "550.163.1"),
        ("580.65.06", "580.65.6"),
        ("580.100.00", "580.100.0"),
        ("537.13", "537.13.0"),
    ],
)
def test_driver_version(reported: str, published: str) -> None:
    assert driver_version(reported) == published


@pytest.mark.parametrize("reported", ["", "580.105.08.1", "580.x.1", "580..1", "v580.1.1", "580.1.1-beta", "٥.1.1"])
def test_driver_version_refuses_what_is_not_one(reported: str) -> None:
    with pytest.raises(ValueError, match="driver version"):
        driver_version(reported)


@pytest.mark.parametrize(
    ("reported", "published"), [(13000, "13.0.0"), (12040, "12.4.0"), (11080, "11.8.0"), (0, "0.0.0")]
)
def test_cuda_version(reported: int, published: str) -> None:
    assert cuda_version(reported) == published


def test_compute_capability() -> None:
    assert compute_capability("9.0") == "9.0.0"
    assert compute_capability("12.0") == "12.0.0"
    with pytest.raises(ValueError, match="compute capability"):
        compute_capability("9")


@given(st.lists(st.integers(min_value=0, max_value=9999), min_size=2, max_size=3), st.integers(0, 99990))
def test_every_version_is_semver(parts: list[int], cuda: int) -> None:
    text = ".".join(f"{part:02d}" for part in parts)
    assert semver.Version.is_valid(driver_version(text))
    assert semver.Version.is_valid(cuda_version(cuda))
