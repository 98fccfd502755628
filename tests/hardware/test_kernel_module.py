"""The kernel module's version, in the forms that real nodes have."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.hardware.kernel_module import module_version

# As real nodes print it: an open module, a closed one (the Talos Linux guide), one on aarch64.
_OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  "
    "(dvs-builder@U22-I3-B17-02-5)  Tue Sep 23 09:55:41 UTC 2025\nGCC version:  gcc version 11.4.0\n"
)
_CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.65.01  Wed Mar 16 11:24:05 UTC 2022\n"
_ARM = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
    "(buildbrain@mobile-u64-6336-d8000)  Tue Jan  7 17:35:12 PST 2025\n"
)


@pytest.mark.parametrize(
    ("said", "version"), [(_OPEN, "580.95.05"), (_CLOSED, "515.65.01"), (_ARM, "540.4.0"), ("nonsense\n", None)]
)
def test_what_the_driver_says_of_itself(tmp_path: Path, said: str, version: str | None) -> None:
    place = tmp_path / "proc/driver/nvidia/version"
    place.parent.mkdir(parents=True)
    place.write_text(said)
    assert module_version(tmp_path) == version


def test_the_modules_own_file_goes_first_and_without_a_module_there_is_none(tmp_path: Path) -> None:
    assert module_version(tmp_path) is None
    place = tmp_path / "sys/module/nvidia/version"
    place.parent.mkdir(parents=True)
    place.write_text("590.44.01\n")
    assert module_version(tmp_path) == "590.44.01"
