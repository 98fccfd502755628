"""A group's record: what was written is read, and what cannot be read says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dra_driver.mps.group import NAMED, GroupFolders, MpsGroup, MpsShare
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor import record as records
from kubelet_plugin.mps_supervisor.record import AnotherVersions, NotARecord, Phase, Record

GROUP = MpsGroup("claim-1", ("GPU-a", "GPU-b"), ("GPU-a",), 50, {"GPU-b": 10240}, multi_user=True)

NAMED_GROUP = MpsGroup("claim-1", ("GPU-a",), ("GPU-a",), multi_user=True, protocol=NAMED)
SHARES = (MpsShare("a", {"GPU-a": 10240}, 25, low_priority=True), MpsShare("b"))
# As the first release wrote it.
FIRST = """{"version": 1, "bootID": "boot", "phase": "Running", "group": {"id": "claim-1", "devices": ["GPU-a", "GPU-b"],
"exclusiveGPUs": ["GPU-a"], "activeThreadPercentage": 50, "pinnedMemoryMiB": {"GPU-b": 10240}, "multiUser": true},
"daemon": {"pid": 17, "started": 123456}}"""


@pytest.mark.parametrize(
    "record",
    [
        Record("boot", GROUP, Phase.RUNNING, Process(17, 123456)),
        Record("boot", MpsGroup("g", ("MIG-1",)), Phase.STARTING),
        Record("boot", NAMED_GROUP, Phase.RUNNING, Process(17, 123456), SHARES, frozenset({"b"})),
    ],
)
def test_there_and_back(tmp_path: Path, record: Record) -> None:
    folders = GroupFolders(tmp_path)
    records.write(folders, record)
    assert records.read(folders) == record
    assert [each.name for each in tmp_path.iterdir()] == [records.FILE]


def test_one_without_shares_is_read_and_written_as_ever(tmp_path: Path) -> None:
    folders = GroupFolders(tmp_path)
    (tmp_path / records.FILE).write_text(FIRST)
    read = records.read(folders)
    assert read == Record("boot", GROUP, Phase.RUNNING, Process(17, 123456))
    records.write(folders, read)
    assert json.loads((tmp_path / records.FILE).read_text()) == json.loads(FIRST)


def test_one_of_protocol_3_has_a_version_that_an_older_supervisor_leaves_alone(tmp_path: Path) -> None:
    record = Record("boot", NAMED_GROUP, Phase.RUNNING, None, SHARES, frozenset({"a"}))
    records.write(GroupFolders(tmp_path), record)
    assert json.loads((tmp_path / records.FILE).read_text())["version"] == 2
    assert record.wanted == SHARES[1:]


def test_none_is_none(tmp_path: Path) -> None:
    assert records.read(GroupFolders(tmp_path)) is None
    assert records.read(GroupFolders(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 2}', "\x00\x00", '{"version": 1, "bootID": "b"}']
)
def test_a_damaged_one_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / records.FILE).write_text(text)
    with pytest.raises(NotARecord, match="damaged"):
        records.read(GroupFolders(tmp_path))


def test_another_versions_says_which(tmp_path: Path) -> None:
    folders = GroupFolders(tmp_path)
    records.write(folders, Record("boot", GROUP, Phase.RUNNING))
    data = json.loads((tmp_path / records.FILE).read_text())
    (tmp_path / records.FILE).write_text(json.dumps({**data, "version": 9}))
    with pytest.raises(AnotherVersions, match="of version 9, this supervisor knows 1 and 2"):
        records.read(folders)
