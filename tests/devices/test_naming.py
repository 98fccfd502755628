"""Device names: NVIDIA's, as recorded, and back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.devices.naming import (
    GpuName,
    MigName,
    device_behind,
    gpu_name,
    is_replica,
    mig_name,
    parse_name,
    partial_profile,
    profile_label,
)

# Recorded from NVIDIA's driver (H100 and A100 with dynamic MIG).
RECORDED = [
    (("1g.10gb", 19, 0), "gpu-0-mig-1g10gb-19-0"),
    (("1g.10gb+me", 20, 6), "gpu-0-mig-1g10gb-me-20-6"),
    (("7g.80gb", 0, 0), "gpu-0-mig-7g80gb-0-0"),
    (("1g.20gb", 15, 0), "gpu-0-mig-1g20gb-15-0"),
    (("3g.40gb", 9, 4), "gpu-0-mig-3g40gb-9-4"),
    (("1g.24gb", 19, 0), "gpu-0-mig-1g24gb-19-0"),
    (("1g.12gb+me.all", 33, 2), "gpu-0-mig-1g12gb-meall-33-2"),
]


@pytest.mark.parametrize(("placement", "name"), RECORDED)
def test_mig_names_are_nvidias(placement: tuple[str, int, int], name: str) -> None:
    assert mig_name(0, *placement) == name


def test_whole_gpus_are_named_by_minor() -> None:
    assert gpu_name(12) == "gpu-12"
    assert parse_name("gpu-12") == GpuName(12)


@pytest.mark.parametrize(
    ("name", "behind", "found"),
    [
        ("gpu-3-replica-0", "gpu-3", GpuName(3, 0)),
        ("gpu-0-mig-1g10gb-me-20-6-replica-12", "gpu-0-mig-1g10gb-me-20-6", MigName(0, "1g10gb-me", 20, 6, None, 12)),
        (
            "gpu-0-mig-1c3g40gb-9-0-c2-replica-1",
            "gpu-0-mig-1c3g40gb-9-0-c2",
            MigName(0, "1c3g40gb", 9, 0, 2, 1),
        ),
    ],
)
def test_replicas_stand_for_a_device(name: str, behind: str, found: GpuName | MigName) -> None:
    assert parse_name(name) == found
    assert str(found) == name
    assert (device_behind(name), is_replica(name)) == (behind, True)
    assert (device_behind(behind), is_replica(behind)) == (behind, False)


@pytest.mark.parametrize(
    "name",
    [
        "gpu",
        "gpu-0-replica",
        "gpu-0-replica-01",
        "gpu-0-replica-1-replica-2",
        "gpu-",
        "gpu-01",
        "gpu-0-mig",
        "gpu-0-mig-19-0",
        "gpu-vfio-0",
        "GPU-0",
        "gpu-0 ",
        "gpu-١",
        "gpu-0-mig-1c3g40gb-9-0-c",
        "gpu-0-mig-1c3g40gb-9-0-c01",
        "a-gpu-0",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        parse_name(name)


def test_a_partial_compute_instance_says_which_slices_it_has() -> None:
    name = mig_name(2, partial_profile("3g.40gb", 2), 9, 4, 1)
    assert name == "gpu-2-mig-2c3g40gb-9-4-c1"
    parsed = parse_name(name)
    assert isinstance(parsed, MigName)
    assert parsed.compute_slices() == range(1, 3)
    whole = parse_name("gpu-2-mig-3g40gb-9-4")
    assert isinstance(whole, MigName)
    assert whole.compute_slices() is None


profiles = st.from_regex(r"\A[1-8](c\.[1-8])?g\.[0-9]{1,3}gb([+-](me|me\.all|gfx))?\Z")
small = st.integers(0, 300)


@given(small, profiles, small, small, st.none() | st.integers(0, 7))
def test_names_are_read_back_and_are_labels(
    minor: int, profile: str, profile_id: int, start: int, compute_start: int | None
) -> None:
    name = mig_name(minor, profile, profile_id, start, compute_start)
    parsed = parse_name(name)
    assert isinstance(parsed, MigName)
    assert (parsed.minor, parsed.profile_id, parsed.start) == (minor, profile_id, start)
    assert (parsed.profile, parsed.compute_start) == (profile_label(profile), compute_start)
    assert str(parsed) == name
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63
