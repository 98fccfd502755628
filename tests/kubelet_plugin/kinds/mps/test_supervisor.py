"""The same cases on the supervisor without daemons and on the real one, a process with simulated daemons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dra_driver.mps.errors import GroupDiffers, SupervisorUnavailable
from dra_driver.mps.group import RECORD, GroupState, GroupStatus, MpsGroup, folders_of
from kubelet_plugin.kinds.mps.supervisor import Supervisor
from tests.kubelet_plugin.fakes import eventually, short_folder
from tests.kubelet_plugin.kinds.mps.fake import FakeSupervisor
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE, Lab
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights

REAL = pytest.param("real", marks=[pytest.mark.process, pytest.mark.root, needs_rights])


@dataclass
class Node:
    supervisor: Supervisor
    plugin_folder: Path
    uuids: list[str]
    end: Callable[[], None]

    def group(self, group_id: str = "u1-abcde", percentage: int | None = 50) -> MpsGroup:
        one, other = sorted(self.uuids[:2])
        return MpsGroup(group_id, (one, other), (one, other), percentage, {one: 1024})


@pytest.fixture(params=["fake", REAL])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with short_folder() as folder:
        if request.param == "fake":
            fake = FakeSupervisor(folder)
            yield Node(fake, folder, ["GPU-1", "GPU-0", "GPU-2"], lambda: setattr(fake, "away", True))
            return
        lab = Lab(folder)
        try:
            process = lab.process()
            yield Node(lab.client, lab.plugin_folder, lab.uuids, process.kill)
        finally:
            lab.close()


def test_a_group_is_started_listed_and_stopped(node: Node) -> None:
    group = node.group()
    assert node.supervisor.groups() == ()
    started = node.supervisor.start(group)
    assert (started.group, started.state, started.message) == (group, GroupState.READY, "")
    (listed,) = node.supervisor.groups()
    assert (listed.group, listed.state, listed.pid) == (group, GroupState.READY, started.pid)
    folders = folders_of(node.plugin_folder, group.id)
    assert all(folder.is_dir() for folder in (folders.pipe, folders.log, folders.shm))
    assert (folders.root / RECORD).is_file()
    node.supervisor.stop(group.id)
    assert node.supervisor.groups() == ()
    assert not folders.root.exists()


def test_starting_and_stopping_may_be_repeated(node: Node) -> None:
    group = node.group()
    assert node.supervisor.start(group) == node.supervisor.start(group)
    node.supervisor.stop(group.id)
    node.supervisor.stop(group.id)
    node.supervisor.stop("never-heard-of")


def test_the_same_id_with_other_settings(node: Node) -> None:
    group = node.group()
    node.supervisor.start(group)
    for other in (node.group(percentage=20), replace(group, devices=group.devices[:1], exclusive_gpus=())):
        with pytest.raises(GroupDiffers, match=f"MPS group {group.id} runs with other settings"):
            node.supervisor.start(other)
    assert [status.group for status in node.supervisor.groups()] == [group]


def test_a_watch_tells_what_there_is(node: Node) -> None:
    told: list[tuple[GroupStatus, ...]] = []
    watch = node.supervisor.watch(told.append)
    watch.start()
    try:
        eventually(lambda: told == [()], PATIENCE)
        group = node.group()
        node.supervisor.start(group)
        eventually(lambda: [(each.group, each.state) for each in told[-1]] == [(group, GroupState.READY)], PATIENCE)
        node.supervisor.stop(group.id)
        eventually(lambda: told[-1] == (), PATIENCE)
    finally:
        watch.stop()


def test_nobody_serves(node: Node) -> None:
    node.end()
    for call in (
        node.supervisor.groups,
        lambda: node.supervisor.stop("u1"),
        lambda: node.supervisor.start(node.group()),
    ):
        with pytest.raises(SupervisorUnavailable):
            call()
