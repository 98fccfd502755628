"""Logs of daemons that have become too large."""

from __future__ import annotations

from pathlib import Path

from dra_driver.mps.group import SERVER, GroupFolders
from kubelet_plugin.mps_supervisor.log_files import cut

MIB = 2**20


def test_a_large_log_is_emptied_and_who_writes_to_it_goes_on(tmp_path: Path) -> None:
    folders = GroupFolders(tmp_path)
    folders.log.mkdir()
    small, large = folders.log / "server.log", folders.log / "control.log"
    small.write_bytes(b"x" * MIB)
    with large.open("wb", buffering=0) as appends_not, (folders.log / "daemon.log").open("ab", buffering=0) as appends:
        for log in (appends_not, appends):
            log.write(b"x" * 17 * MIB)
        cut(folders)
        assert small.stat().st_size == MIB
        assert large.stat().st_size == 0
        for log in (appends_not, appends):
            log.write(b"more")
        assert (folders.log / "daemon.log").read_bytes() == b"more"
        assert large.stat().st_blocks * 512 < MIB, "a hole takes no room"
        cut(folders)
        assert large.read_bytes().endswith(b"more"), "and does not count"


def test_the_log_of_a_server_of_its_own_is_emptied_too(tmp_path: Path) -> None:
    folders = GroupFolders(tmp_path)
    log = folders.log / SERVER / "server.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * 17 * MIB)
    cut(folders)
    assert log.stat().st_size == 0


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folders, outside = GroupFolders(tmp_path / "group"), tmp_path / "outside"
    outside.write_bytes(b"x" * 17 * MIB)
    folders.log.mkdir(parents=True)
    (folders.log / "control.log").symlink_to(outside)
    cut(folders)
    assert outside.stat().st_size == 17 * MIB
