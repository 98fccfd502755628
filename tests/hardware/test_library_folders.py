"""The one list of library folders: what is in it, and what a root's own linker configuration adds."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dra_driver.cdi.driver_files import find_driver_files
from dra_driver.cdi.roots import Root
from dra_driver.errors import HardwareUnavailable
from dra_driver.hardware.library_folders import LIBRARY_FOLDERS, library_folders
from dra_driver.hardware.nvml import NvmlHardware
from tests.cdi.driver_root import VERSION, add_file, add_link, small_root


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("folder", [*LIBRARY_FOLDERS, "/opt/driver/lib"])
def test_nvml_and_cdi_files_find_the_driver_in_the_same_folders(folder: str, tmp_path: Path) -> None:
    add_file(tmp_path, "/etc/ld.so.conf", b"include ld.so.conf.d/*.conf\n")
    add_file(tmp_path, "/etc/ld.so.conf.d/driver.conf", b"/opt/driver/lib\n")
    small_root(tmp_path, folder=folder)
    assert find_driver_files(Root(tmp_path), VERSION).library_folder == folder
    # That it is no library shows which file was found.
    with pytest.raises(HardwareUnavailable, match=f"cannot load {tmp_path}{folder}/libnvidia-ml.so.{VERSION}"):
        NvmlHardware(driver_root=tmp_path).start()


def test_the_linkers_configuration_is_read_as_ldconfig_reads_it(tmp_path: Path) -> None:
    add_file(
        tmp_path,
        "/etc/ld.so.conf",
        b"# ours\n/a /b:/c, /usr/lib64\nhwcap 1 x\nrelative\ninclude sub/*.conf # all\n/d/\n",
    )
    add_file(tmp_path, "/etc/sub/2.conf", b"/e\ninclude /etc/ld.so.conf\n")
    add_file(tmp_path, "/etc/sub/1.conf", b"/f\n")
    add_file(tmp_path, "/etc/sub/.hidden.conf", b"/g\n")
    add_file(tmp_path, "/etc/sub/other", b"/h\n")
    assert library_folders(tmp_path) == (*LIBRARY_FOLDERS, "/a", "/b", "/c", "/f", "/e", "/d")


def test_links_of_the_linkers_configuration_stay_inside_the_root(tmp_path: Path) -> None:
    add_link(tmp_path, "/etc/ld.so.conf", "/opt/linker.conf")
    add_file(tmp_path, "/opt/linker.conf", b"/inside\n")
    assert library_folders(tmp_path)[-1] == "/inside"


def test_a_linker_configuration_that_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_link(tmp_path, "/etc/ld.so.conf", "ld.so.conf")
    with caplog.at_level(logging.INFO):
        assert library_folders(tmp_path) == LIBRARY_FOLDERS
    assert "cannot read /etc/ld.so.conf" in caplog.text
