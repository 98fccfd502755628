"""The capability nodes of MIG devices: from the files of existing instances, from the table, and from neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.cdi.mig_capabilities import MigCapabilities, read_mig_capabilities
from dra_driver.errors import HardwareError

ACCESS = "proc/driver/nvidia/capabilities/gpu3/mig/gi5/access"
COMPUTE_ACCESS = "proc/driver/nvidia/capabilities/gpu3/mig/gi5/ci1/access"
TABLE = "proc/driver/nvidia-caps/mig-minors"
FILES = {
    "proc/devices": "Character devices:\n  1 mem\n195 nvidia-frontend\n236 nvidia-caps\n237 nvidia-caps-imex-channels\n",
    ACCESS: "DeviceFileMinor: 453\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
    COMPUTE_ACCESS: "DeviceFileMinor: 455\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
    TABLE: "config 1\nmonitor 2\ngpu3/gi5/access 453\ngpu3/gi5/ci0/access 454\ngpu3/gi5/ci1/access 455\n",
}


def host(folder: Path, *, without: tuple[str, ...] = (), **changed: str) -> Path:
    names = {"devices": "proc/devices", "access": ACCESS, "table": TABLE}
    files = {**FILES, **{names[key]: text for key, text in changed.items()}}
    for name, text in files.items():
        if name not in without:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@pytest.mark.parametrize("without", [(), (TABLE,), (ACCESS,), (ACCESS, COMPUTE_ACCESS)])
def test_either_source_is_enough(tmp_path: Path, without: tuple[str, ...]) -> None:
    assert read_mig_capabilities(host(tmp_path, without=without), 3, 5, 1) == MigCapabilities(236, 453, 455)


def test_the_nodes_have_type_and_numbers() -> None:
    parent, own = MigCapabilities(236, 453, 455).device_nodes()
    assert (parent.path, parent.type, parent.major, parent.minor) == ("/dev/nvidia-caps/nvidia-cap453", "c", 236, 453)
    assert (own.path, own.type, own.major, own.minor) == ("/dev/nvidia-caps/nvidia-cap455", "c", 236, 455)


@pytest.mark.parametrize(
    ("without", "named"),
    [
        (("proc/devices",), "proc/devices names no character device nvidia-caps"),
        ((ACCESS, TABLE), f"gpu3/gi5/access: .*{ACCESS} is not there, and .*{TABLE} does not list it"),
        ((COMPUTE_ACCESS, TABLE), f"gpu3/gi5/ci1/access: .*{COMPUTE_ACCESS} is not there"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, without: tuple[str, ...], named: str) -> None:
    with pytest.raises(HardwareError, match=named) as caught:
        read_mig_capabilities(host(tmp_path, without=without), 3, 5, 1)
    assert caught.value.retryable


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=f"{ACCESS} has no DeviceFileMinor"):
        read_mig_capabilities(host(tmp_path / "a", access="nonsense"), 3, 5, 1)
    with pytest.raises(HardwareError, match="names no character device nvidia-caps"):
        read_mig_capabilities(host(tmp_path / "b", devices="237 nvidia-caps-imex-channels\n"), 3, 5, 1)
    without = (ACCESS,)
    with pytest.raises(HardwareError, match="does not list it"):
        read_mig_capabilities(host(tmp_path / "c", without=without, table="gpu3/gi5/access many\n"), 3, 5, 1)
    (tmp_path / "d" / ACCESS).mkdir(parents=True)
    with pytest.raises(HardwareError, match=f"cannot read .*{ACCESS}"):
        read_mig_capabilities(host(tmp_path / "d", without=without), 3, 5, 1)
