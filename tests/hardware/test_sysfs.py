from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.rooted import resolve_inside
from dra_driver.hardware.sysfs import Sysfs

BUS_ID = "0000:1a:00.0"
DEVICE = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:1a:00.0"


def device(root: Path, link: str, numa: str | None) -> None:
    folder = root / DEVICE
    folder.mkdir(parents=True)
    if numa is not None:
        (folder / "numa_node").write_text(numa)
    devices = root / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / BUS_ID).symlink_to(link)


@pytest.mark.parametrize("link", [f"../../../../{DEVICE}", f"/{DEVICE}"])
def test_root_and_numa_node_are_found_inside_the_root(tmp_path: Path, link: str) -> None:
    device(tmp_path, link, "1\n")
    sysfs = Sysfs(tmp_path)
    assert sysfs.pcie_root(BUS_ID) == "pci0000:15"
    assert sysfs.numa_node(BUS_ID) == 1


def test_a_root_that_is_itself_reached_by_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    device(real, f"/{DEVICE}", "0")
    (tmp_path / "host").symlink_to(real)
    assert Sysfs(tmp_path / "host").pcie_root(BUS_ID) == "pci0000:15"


@pytest.mark.parametrize("numa", ["-1\n", None, "what"])
def test_an_unknown_numa_node_is_none(tmp_path: Path, numa: str | None, caplog: pytest.LogCaptureFixture) -> None:
    device(tmp_path, f"/{DEVICE}", numa)
    with caplog.at_level(logging.WARNING):
        assert Sysfs(tmp_path).numa_node(BUS_ID) is None
    assert bool(caplog.records) == (numa != "-1\n")


def test_an_unknown_device_has_no_topology(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    assert sysfs.pcie_root(BUS_ID) is None
    assert sysfs.numa_node(BUS_ID) is None


def test_a_device_that_is_not_below_a_pci_root(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/virtual" / BUS_ID).mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices" / BUS_ID).symlink_to(f"/sys/devices/virtual/{BUS_ID}")
    assert Sysfs(tmp_path).pcie_root(BUS_ID) is None


def test_boot_id(tmp_path: Path) -> None:
    path = tmp_path / "proc/sys/kernel/random/boot_id"
    path.parent.mkdir(parents=True)
    path.write_text("bd6d1d0e-0000-4000-8000-000000000000\n")
    assert Sysfs(tmp_path).boot_id() == "bd6d1d0e-0000-4000-8000-000000000000"


def test_a_missing_boot_id_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=str(tmp_path)):
        Sysfs(tmp_path).boot_id()


def test_links_never_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("../../../../etc/passwd")
    (tmp_path / "b").symlink_to("/etc/passwd")
    assert resolve_inside(tmp_path, "/a") == tmp_path / "etc/passwd"
    assert resolve_inside(tmp_path, "/b") == tmp_path / "etc/passwd"


def test_links_in_a_circle_are_an_error_and_no_topology(tmp_path: Path) -> None:
    devices = tmp_path / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / BUS_ID).symlink_to(BUS_ID)
    with pytest.raises(OSError, match="symbolic links"):
        resolve_inside(tmp_path, f"/sys/bus/pci/devices/{BUS_ID}")
    assert Sysfs(tmp_path).pcie_root(BUS_ID) is None
