"""A supervisor without any rights, in this process, on real daemons of a simulated node."""

from __future__ import annotations

import os
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.mps import errors
from dra_driver.mps.group import GroupState, GroupStatus, MpsGroup
from dra_driver.processes import Process
from dra_driver.simulation.hardware.faults import inject_mps_fault
from kubelet_plugin.mps_supervisor import canary, observer, service
from kubelet_plugin.mps_supervisor.app import SupervisorApp
from kubelet_plugin.mps_supervisor.surroundings import MARK
from kubelet_plugin.node.peers import Peer
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE, Lab, ended
from tests.kubelet_plugin.mps_supervisor.plain import NoCgroups

pytestmark = pytest.mark.process


def environment(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(each.split("=", 1) for each in text if "=" in each)


def test_a_group_is_started_with_all_it_needs_and_nothing_is_left_of_it(lab: Lab) -> None:
    with lab.in_process():
        group, folders = lab.group(), lab.folders()
        status = lab.client.start(group)
        assert (status.group, status.state, status.message) == (group, GroupState.READY, "")
        assert [stat.S_IMODE(each.stat().st_mode) for each in (folders.pipe, folders.log)] == [0o755, 0o755]
        assert lab.isolation.mounts.keys() == {folders.shm}
        assert lab.compute_modes()[:2] == [ComputeMode.EXCLUSIVE_PROCESS, ComputeMode.DEFAULT]
        variables = environment(status.pid)
        assert variables["CUDA_VISIBLE_DEVICES"] == lab.uuids[0]
        assert variables["CUDA_MPS_PIPE_DIRECTORY"] == str(folders.pipe)
        assert variables["CUDA_MPS_LOG_DIRECTORY"] == str(folders.log)
        assert variables[MARK] == str(folders.root)
        assert os.getsid(status.pid) == status.pid
        client = lab.counting()
        client.still_counts()
        client.end(signal.SIGTERM)
        lab.client.stop(group.id)
        assert not Path(f"/proc/{status.pid}").exists()
        assert lab.left() == []
        assert lab.client.groups() == ()


def test_the_same_group_again_is_at_once_and_other_settings_are_refused(lab: Lab) -> None:
    with lab.in_process():
        first = lab.client.start(lab.group())
        assert lab.client.start(lab.group()) == first
        with pytest.raises(errors.GroupDiffers, match=r"active thread percentage 50, asked for is 20"):
            lab.client.start(lab.group(percentage=20))
        with pytest.raises(errors.GroupDiffers, match=r"is in MPS group claim-1 already"):
            lab.client.start(lab.group("claim-2"))
        assert lab.client.groups() == (first,)
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_limits_are_those_of_the_clients(lab: Lab) -> None:
    with lab.in_process():
        lab.client.start(lab.group())
        refused = lab.refused_client("--allocate", "20G")
        assert "CUDA_ERROR_OUT_OF_MEMORY" in refused
        lab.client.stop("claim-1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "../up"}, "id of MPS group"),
        ({"devices": ("GPU-nothing",), "exclusive_gpus": (), "pinned_memory_mib": {}}, "GPU-nothing is not on this"),
        ({"devices": (), "exclusive_gpus": (), "pinned_memory_mib": {}}, "has no devices"),
        ({"active_thread_percentage": 101}, "must be 1 to 100"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_done(lab: Lab, change: dict[str, object], words: str) -> None:
    with lab.in_process():
        with pytest.raises(errors.GroupRefused, match=words) as caught:
            lab.client.start(replace(lab.group(), **change))  # type: ignore[arg-type]
        assert not caught.value.retryable
        assert lab.left() == []
        assert lab.client.groups() == ()


def test_unknown_ids_are_stopped_and_what_they_left_is_removed(lab: Lab) -> None:
    with lab.in_process():
        lab.client.stop("nobody")
        folders = lab.folders("nobody")
        folders.pipe.mkdir(parents=True)
        lab.isolation.mounts[folders.root / "shm"] = 1
        lab.client.stop("nobody")
        assert lab.left() == []


def test_a_daemon_that_dies_at_its_start_is_told_with_its_words_and_rolled_back(lab: Lab) -> None:
    inject_mps_fault(lab.state_file, crash=("start",))
    with lab.in_process():
        with pytest.raises(errors.GroupFailed, match="control daemon of MPS group claim-1 ended"):
            lab.client.start(lab.group())
        assert lab.left() == []


def test_a_driver_root_without_the_program_says_so(lab: Lab) -> None:
    (lab.host / "usr/bin/nvidia-cuda-mps-control").unlink()
    with lab.in_process():
        with pytest.raises(errors.GroupFailed, match=r"no nvidia-cuda-mps-control below driver root"):
            lab.client.start(lab.group())
        assert lab.left() == []


def test_a_start_that_takes_too_long_is_rolled_back(lab: Lab) -> None:
    inject_mps_fault(lab.state_file, hang=("start",))
    with lab.in_process("--mps-start-timeout=300ms"):
        with pytest.raises(errors.GroupTimeout, match="did not answer within"):
            lab.client.start(lab.group())
        assert lab.left() == []


def test_a_start_that_hangs_delays_no_other_group_and_can_be_stopped(lab: Lab) -> None:
    inject_mps_fault(lab.state_file, gpu=0, hang=("start",))
    told: list[BaseException] = []

    def start() -> None:
        try:
            lab.client.start(lab.group())
        except errors.MpsError as error:
            told.append(error)

    with lab.in_process():
        hanging = threading.Thread(target=start)
        hanging.start()
        lab.wait_for(GroupState.STARTING)
        assert lab.client.start(lab.group("claim-2", gpu=1)).state is GroupState.READY
        assert lab.state() is GroupState.STARTING
        lab.client.stop("claim-1")
        hanging.join(PATIENCE)
        assert [type(each) for each in told] == [errors.GroupTimeout]
        lab.client.stop("claim-2")
        assert lab.left() == []


def test_eight_groups_at_once(lab: Lab) -> None:
    with lab.in_process():
        groups = [lab.group(f"claim-{number}", gpu=number) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert {each.state for each in pool.map(lab.client.start, groups)} == {GroupState.READY}
            list(pool.map(lab.client.stop, [group.id for group in groups]))
        assert lab.left() == []


def test_a_daemon_that_dies_is_told_to_those_who_watch_and_stopped_like_any_other(lab: Lab) -> None:
    told: SimpleQueue[tuple[GroupStatus, ...]] = SimpleQueue()
    with lab.in_process():
        watch = lab.client.watch(told.put)
        watch.start()
        try:
            status = lab.client.start(lab.group())
            os.kill(status.pid, signal.SIGKILL)
            states: list[GroupState] = []
            while GroupState.DEAD not in states:
                states = [each.state for each in told.get(timeout=PATIENCE)]
        finally:
            watch.stop()
        dead = lab.status()
        assert dead is not None
        assert "has ended; its clients are lost" in dead.message
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_a_dead_group_that_is_asked_for_again_has_another_daemon_in_the_same_folders(lab: Lab) -> None:
    with lab.in_process():
        first = lab.client.start(lab.group())
        shm = lab.folders().shm.stat().st_ino
        os.kill(first.pid, signal.SIGKILL)
        lab.wait_for(GroupState.DEAD)
        again = lab.client.start(lab.group())
        assert again.state is GroupState.READY
        assert again.pid != first.pid
        assert lab.folders().shm.stat().st_ino == shm
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_a_daemon_that_hangs_is_dead_and_one_that_comes_back_is_ready(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "_ANSWER_SECONDS", 1.0)
    with lab.in_process():
        status = lab.client.start(lab.group())
        os.kill(status.pid, signal.SIGSTOP)
        lab.wait_for(GroupState.DEAD)
        assert "does not answer" in str(lab.status())
        os.kill(status.pid, signal.SIGCONT)
        lab.wait_for(GroupState.READY)
        os.kill(status.pid, signal.SIGSTOP)
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_a_server_that_lets_nothing_through_is_found_and_recycled_when_it_is_idle(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "_SECONDS", 2.0)
    inject_mps_fault(lab.state_file, wedge=True)
    with lab.in_process():
        first = lab.client.start(lab.group())
        bystander, victim = lab.counting(), lab.counting()
        eventually(lambda: getattr(lab.status(), "clients", 0) == 2, PATIENCE)
        victim.end(signal.SIGKILL)
        lab.wait_for(GroupState.WEDGED)
        told = lab.status()
        assert told is not None
        assert "started anew when no client is left (1 now)" in told.message
        assert told.pid == first.pid
        bystander.end(signal.SIGTERM)
        lab.wait_for(GroupState.READY)
        again = lab.status()
        assert again is not None
        assert again.pid not in (0, first.pid)
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_a_supervisor_that_ends_leaves_daemons_to_the_next_which_adopts_them(lab: Lab) -> None:
    with lab.in_process():
        before = lab.client.start(lab.group())
        client = lab.counting()
    client.still_counts()
    with lab.in_process():
        eventually(lambda: getattr(lab.status(), "clients", 0) == 1, PATIENCE)
        status = lab.status()
        assert status is not None
        assert (status.state, status.pid) == (GroupState.READY, before.pid)
        assert lab.client.start(lab.group()).pid == before.pid
        client.still_counts()
        client.end(signal.SIGTERM)
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_a_daemon_that_died_meanwhile_is_told_and_kept_for_whom_it_concerns(lab: Lab) -> None:
    with lab.in_process():
        before = lab.client.start(lab.group())
    daemon = Process.of(before.pid)
    assert daemon is not None
    os.kill(before.pid, signal.SIGKILL)
    eventually(ended(daemon), PATIENCE)
    with lab.in_process():
        lab.wait_for(GroupState.DEAD)
        assert lab.compute_modes()[0] is ComputeMode.EXCLUSIVE_PROCESS
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_a_group_of_a_supervisor_of_another_version_is_told_and_left_alone(lab: Lab) -> None:
    with lab.in_process():
        before = lab.client.start(lab.group())
        client = lab.counting()
    record = lab.folders().root / "group.json"
    text = record.read_text()
    record.write_text(text.replace('"version": 1', '"version": 9'))
    with lab.in_process():
        lab.wait_for(GroupState.DEAD)
        assert "version 9" in str(lab.status())
        with pytest.raises(errors.GroupFailed, match="use the supervisor that started it"):
            lab.client.stop("claim-1")
        client.still_counts()
    record.write_text(text)
    with lab.in_process():
        lab.wait_for(GroupState.READY)
        assert getattr(lab.status(), "pid", None) == before.pid
        client.still_counts()
        client.end(signal.SIGTERM)
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_after_a_reboot_nothing_of_the_earlier_boot_is_adopted(lab: Lab) -> None:
    with lab.in_process():
        before = lab.client.start(lab.group())
    os.kill(before.pid, signal.SIGKILL)
    lab.isolation.mounts.clear()
    boot_id = lab.host / "proc/sys/kernel/random/boot_id"
    boot_id.write_text("another-boot\n")
    lab.reset_compute_modes()
    with lab.in_process():
        assert lab.client.groups() == ()
        assert lab.left() == []


def test_groups_outlive_a_supervisor_that_began_before_the_simulated_node_was_complete(lab: Lab) -> None:
    boot_id = lab.host / "proc/sys/kernel/random/boot_id"
    aside = boot_id.rename(boot_id.with_name("aside"))
    app = SupervisorApp(lab.config(), isolation=lab.isolation, cgroups=NoCgroups())
    app.start()
    try:
        aside.rename(boot_id)
        eventually(lab.serves, PATIENCE)
        before = lab.client.start(lab.group())
    finally:
        app.stop()
    with lab.in_process():
        assert lab.client.groups() == (before,)
        lab.client.stop("claim-1")
        assert lab.left() == []


def test_what_nobody_knows_is_removed_at_the_start_and_strangers_are_left_alone(lab: Lab) -> None:
    orphan, stranger = lab.sleeper(lab.folders("lost").root), lab.sleeper(lab.root / "elsewhere" / "mps" / "x")
    lab.folders("half").pipe.mkdir(parents=True)
    lab.isolation.mounts[lab.folders("half").root / "shm"] = 1
    with lab.in_process():
        assert lab.client.groups() == ()
        assert lab.left() == []
        assert orphan.wait(PATIENCE) == -signal.SIGKILL
        assert stranger.poll() is None


def test_a_daemon_of_another_driver_with_the_same_layout_is_left_alone(lab: Lab) -> None:
    """NVIDIA's driver keeps its groups in the same folder, without a record of ours."""
    theirs = lab.folders("claim-of-another-driver").root
    (theirs / "pipe").mkdir(parents=True)
    (theirs / "pipe" / "control").touch()
    with lab.in_process():
        assert (theirs / "pipe" / "control").exists()
        assert lab.client.groups() == ()


def test_the_socket_is_for_root_alone(lab: Lab) -> None:
    with lab.in_process():
        assert stat.S_IMODE(lab.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((lab.folder / "supervisor.sock").stat().st_mode) == 0o600


def test_a_group_of_a_mig_device_leaves_the_compute_mode(lab: Lab) -> None:
    uuid = lab.mig_device(gpu=2)
    with lab.in_process():
        group = MpsGroup("claim-mig", (uuid,), (), 20, {uuid: 1024})
        assert lab.client.start(group).state is GroupState.READY
        assert set(lab.compute_modes()) == {ComputeMode.DEFAULT}
        client = lab.counting("claim-mig")
        client.still_counts()
        client.end(signal.SIGTERM)
        with pytest.raises(errors.GroupRefused, match=r"the device has \d+ MiB"):
            lab.client.start(MpsGroup("big", (uuid,), (), None, {uuid: 80 * 1024}))
        lab.client.stop(group.id)
        assert lab.left() == []


def test_nobody_is_served_while_a_stranger_is_connected(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.in_process():
        monkeypatch.setattr(service, "peers", lambda path: (Peer(1, 0), Peer(2, 1000)))
        with pytest.raises(errors.GroupFailed, match="somebody who is not root is connected"):
            lab.client.start(lab.group())
        monkeypatch.undo()
        assert lab.client.groups() == ()
        assert lab.left() == []
