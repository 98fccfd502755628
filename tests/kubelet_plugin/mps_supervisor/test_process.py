"""The supervisor as it is on a node: a process with all rights, which is killed, ended and replaced."""

from __future__ import annotations

import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.mps.group import GroupState
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor.cgroups import PARENT, cgroup_of
from kubelet_plugin.mps_supervisor.daemon import marked_processes
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE, Lab, ended, free_port, get
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]


def mounts(pid: int) -> dict[str, str]:
    """The device that is mounted on each folder, as a process sees it; the last one counts."""
    lines = (line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    return {fields[4]: fields[2] for fields in lines}


def command(pid: int) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def cgroups(pid: int) -> set[str]:
    return {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}


def test_the_daemon_has_the_groups_tmpfs_on_dev_shm_and_a_cgroup_of_its_own(lab: Lab) -> None:
    lab.process()
    status = lab.client.start(lab.group())
    shm = str(lab.folders().shm)
    ours, its = mounts(os.getpid()), mounts(status.pid)
    assert its["/dev/shm"] == ours[shm] != ours.get("/dev/shm")
    assert os.readlink(f"/proc/{status.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    options = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {shm} " in line)
    assert {"rw", "nosuid", "nodev", "noexec", "relatime"} <= set(options.split()[5].split(","))
    assert "size=" in options
    assert cgroups(status.pid) <= {"/", f"/{PARENT}/{cgroup_of(lab.folders())}"}
    lab.client.stop("claim-1")
    assert lab.left() == []
    assert lab.cgroups() == []


def test_what_is_written_to_shm_is_seen_by_the_daemon(lab: Lab) -> None:
    lab.process()
    status = lab.client.start(lab.group())
    (lab.folders().shm / "seen").write_text("by both")
    assert Path(f"/proc/{status.pid}/root/dev/shm/seen").read_text() == "by both"
    lab.client.stop("claim-1")
    assert lab.left() == []


def test_a_tmpfs_in_use_is_unmounted_all_the_same(lab: Lab) -> None:
    lab.process()
    lab.client.start(lab.group())
    with (lab.folders().shm / "open").open("w"):
        lab.client.stop("claim-1")
    assert lab.left() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_clients_count_on_while_supervisors_end_and_come(lab: Lab, number: signal.Signals) -> None:
    supervisor = lab.process()
    before = lab.client.start(lab.group())
    client = lab.counting()
    for _ in range(3):
        supervisor.process.send_signal(number)
        supervisor.process.wait(PATIENCE)
        client.still_counts()
        supervisor = lab.process()
        lab.wait_for(GroupState.READY)
        assert getattr(lab.status(), "pid", None) == before.pid
        client.still_counts()
    client.end(signal.SIGTERM)
    lab.client.stop("claim-1")
    assert lab.left() == []


def test_the_second_supervisor_waits_for_the_first_and_takes_over(lab: Lab) -> None:
    first = lab.process()
    before = lab.client.start(lab.group())
    client = lab.counting()
    port = free_port()
    lab.start_process(f"--http-endpoint=127.0.0.1:{port}")
    eventually(lambda: get(port, "/healthz")[0] == 200, PATIENCE)
    code, text = get(port, "/readyz")
    assert code == 503
    assert "not taken over yet" in text
    assert first.terminate() == 0
    eventually(lambda: get(port, "/readyz")[0] == 200, PATIENCE)
    lab.wait_for(GroupState.READY)
    assert getattr(lab.status(), "pid", None) == before.pid
    client.still_counts()
    eventually(lambda: "gpu_dra_mps_clients 1.0" in get(port, "/metrics")[1], PATIENCE)
    metrics = get(port, "/metrics")[1]
    assert 'gpu_dra_mps_groups{state="Ready"} 1.0' in metrics
    assert "gpu_dra_mps_own_cgroups 1.0" in metrics
    assert re.search(r"^gpu_dra_mps_control_seconds_count [1-9]", metrics, re.MULTILINE)
    client.end(signal.SIGTERM)
    lab.client.stop("claim-1")
    assert lab.left() == []


def test_a_wrong_configuration_is_told_with_its_flag(lab: Lab) -> None:
    supervisor = lab.start_process("--mps-start-timeout=0s")
    assert supervisor.process.wait(PATIENCE) == 2
    assert "--mps-start-timeout: must be longer than 0s" in supervisor.output()


def test_a_folder_of_somebody_else_is_not_taken(lab: Lab) -> None:
    lab.folder.parent.mkdir(parents=True)
    (lab.root / "other").mkdir()
    lab.folder.symlink_to(lab.root / "other")
    supervisor = lab.start_process()
    assert supervisor.process.wait(PATIENCE) == 1
    assert "is not a folder of ours" in supervisor.output()
    assert list((lab.root / "other").iterdir()) == []
    assert stat.S_ISLNK(lab.folder.lstat().st_mode)


def test_a_killed_daemon_is_noticed_by_an_adopting_supervisor_too(lab: Lab) -> None:
    lab.process().kill()
    lab.process()
    before = lab.client.start(lab.group())
    daemon = Process.of(before.pid)
    assert daemon is not None
    lab.wait_for(GroupState.READY)
    os.kill(before.pid, signal.SIGKILL)
    eventually(ended(daemon), PATIENCE)
    lab.wait_for(GroupState.DEAD)
    assert lab.compute_modes()[0] is ComputeMode.EXCLUSIVE_PROCESS
    lab.client.stop("claim-1")
    assert lab.left() == []


def test_a_share_is_a_namespace_of_a_daemon_that_outlives_supervisors(named: Lab) -> None:
    supervisor = named.process()
    status = named.client.start(named.named_group())
    named.client.put_share("claim-1", named.share("x" * 64))
    assert stat.S_ISFIFO(os.stat(f"/proc/{status.pid}/fd/0").st_mode)  # on which nothing comes, and no end
    client = named.counting(share="x" * 64)
    supervisor.kill()
    client.still_counts()
    named.process()
    named.wait_for(GroupState.READY)
    after = named.status()
    assert after is not None
    assert after.pid == status.pid
    assert [each.share.name for each in after.shares] == ["x" * 64]
    client.still_counts()
    client.end(signal.SIGTERM)
    named.client.remove_share("claim-1", "x" * 64)
    named.client.stop("claim-1")
    assert named.left() == []
    assert named.cgroups() == []


def test_a_container_with_a_shares_folder_read_only_is_a_client_and_changes_nothing(named: Lab) -> None:
    named.process()
    named.client.start(named.named_group())
    named.client.put_share("claim-1", named.share())
    folder, inside = named.folders().share("a"), named.root / "inside"
    inside.mkdir()
    script = (
        f"mount --bind {folder} {inside} && mount -o remount,bind,ro {inside} && cd {named.host}/usr/bin && "
        "./simulated-cuda-client --allocate 2G && ! ./simulated-cuda-client --allocate 11G && "
        "! ./nvidia-cuda-mps-control namespace set a --server=gpus --pinned-memory-limit=70G"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(inside)},
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "memory_limit.0=10G" in done.stdout
    assert "it is for clients" in done.stderr
    assert named.mps_control("namespace", "get", "a", "gpus", "pinned-memory-limit") == ["10G"]


def test_from_a_container_the_daemon_goes_to_the_hosts_namespaces_of_cgroups(lab: Lab) -> None:
    """A host is played by a process 1 of its own, a container by a process beside it with other namespaces of mounts
    and cgroups, in which no process can be moved out of the container."""
    supervisor = [sys.executable, "-m", "kubelet_plugin.mps_supervisor.main", *lab.arguments()]
    container = shlex.join(["unshare", "--mount", "--propagation", "unchanged", "--cgroup", *supervisor])
    host = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--propagation", "shared"]
    with (lab.root / "log").open("ab") as log:
        played = subprocess.Popen([*host, "sh", "-c", f"{container}; true"], stdout=log, stderr=log)
    try:
        eventually(lambda: lab.serves() or played.poll() is not None, PATIENCE)
        if played.poll() is not None:
            pytest.skip(f"no host can be played here: {(lab.root / 'log').read_text()}")
        lab.client.start(lab.group())
        own = {"/", f"/{PARENT}/{cgroup_of(lab.folders())}"}

        # The programs that ask the daemon carry its mark as well, and stay where they are.
        marked = (each.pid for each, root in marked_processes().items() if root == str(lab.folders().root))
        daemons = [pid for pid in marked if b"mps.control" in command(pid)]
        assert daemons
        assert all(cgroups(pid) <= own for pid in daemons)
        lab.client.stop("claim-1")
        assert lab.left() == []
        assert lab.cgroups() == []
    finally:
        played.kill()
        played.wait(PATIENCE)
