"""A group's record: what was written is read, and what cannot be read says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dra_driver.mps.group import GroupFolders, MpsGroup
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor import record as records
from kubelet_plugin.mps_supervisor.record import AnotherVersions, NotARecord, Phase, Record

GROUP = MpsGroup("claim-1", ("GPU-a", "GPU-b"), ("GPU-a",), 50, {"GPU-b": 10240}, multi_user=True)


@pytest.mark.parametrize(
    "record",
    [
        Record("boot", GROUP, Phase.RUNNING, Process(17, 123456)),
        Record("boot", MpsGroup("g", ("MIG-1",)), Phase.STARTING),
    ],
)
def test_there_and_back(tmp_path: Path, record: Record) -> None:
    folders = GroupFolders(tmp_path)
    records.write(folders, record)
    assert records.read(folders) == record
    assert [each.name for each in tmp_path.iterdir()] == [records.FILE]


def test_none_is_none(tmp_path: Path) -> None:
    assert records.read(GroupFolders(tmp_path)) is None
    assert records.read(GroupFolders(tmp_path / "nothing")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1}', "\x00\x00", '{"version": 1, "bootID": "b"}'])
def test_a_damaged_one_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / records.FILE).write_text(text)
    with pytest.raises(NotARecord, match="damaged"):
        records.read(GroupFolders(tmp_path))


def test_another_versions_says_which(tmp_path: Path) -> None:
    folders = GroupFolders(tmp_path)
    records.write(folders, Record("boot", GROUP, Phase.RUNNING))
    data = json.loads((tmp_path / records.FILE).read_text())
    (tmp_path / records.FILE).write_text(json.dumps({**data, "version": 2}))
    with pytest.raises(AnotherVersions, match="of version 2, this supervisor knows 1"):
        records.read(folders)
