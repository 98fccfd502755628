"""The script that runtimes run, against the real server: what it lets start, what it refuses, and how long it waits."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation.hardware import create_state, faults, host_root, install, uninstall
from dra_driver.simulation.hardware.mps import scripts
from kubelet_plugin.memory_fence import hook, requests
from kubelet_plugin.memory_fence.container import Container
from kubelet_plugin.memory_fence.requests import Requests
from kubelet_plugin.memory_fence.room import FOLDER, build
from kubelet_plugin.memory_fence.share import ShareName
from tests.cgroup_tree import DRIVER, RealCgroups, needs_v2, real_cgroups
from tests.kubelet_plugin.memory_fence.lab import CLAIM, SHARE, Lab
from tests.simulation.hardware.mps.conftest import facts

__all__ = ["real_cgroups"]
pytestmark = pytest.mark.process

TOOLS = ("cat", "mkdir", "mv", "sleep")


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, f"not in 20 s: {what}"
        time.sleep(0.01)


def shells() -> list[list[str]]:
    found = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
    busybox = shutil.which("busybox")
    return found + ([[busybox, "sh"]] if busybox else [])


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("shell", shells(), ids=lambda shell: Path(shell[0]).name)
def test_a_container_starts_when_its_limits_are_set(lab: Lab, shell: list[str]) -> None:
    lab.serve()
    share, container = lab.prepare(gpu0=(2, 10), gpu3=(0, 20)), lab.container()
    assert lab.run_hook(share, container, shell=shell) == (0, "")
    assert [lab.fence_of(container, gpu) for gpu in (0, 3)] == [(2, 10), (0, 20)]


def test_it_needs_four_programs_and_no_more(lab: Lab, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or name)
    lab.serve()
    path = lab.plugin / hook.FILE
    path.write_text(path.read_text().replace("PATH=/usr/local/sbin", f"PATH={tools}\nNOT_PATH=", 1))
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    assert lab.run_hook(share, container) == (0, "")
    assert lab.fence_of(container) == (0, 10)


def test_a_sleep_that_knows_whole_seconds_only_will_do(lab: Lab, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "mkdir", "mv"):
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "sleep").write_text('#!/bin/sh\ncase $1 in *.*) exit 1 ;; *) exec /bin/sleep "$1" ;; esac\n')
    (tools / "sleep").chmod(0o755)
    lab.serve(wait_seconds=2)
    path = lab.plugin / hook.FILE
    path.write_text(path.read_text().replace("PATH=/usr/local/sbin", f"PATH={tools}\nNOT_PATH=", 1))
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    assert lab.run_hook(share, container) == (0, "")
    lab.servers.pop().stop()
    code, err = lab.run_hook(share, container)
    assert (code, "no answer in 2 s" in err) == (1, True)


def test_two_containers_of_one_claim_at_once_and_several_shares_in_one(lab: Lab) -> None:
    lab.serve()
    one, two = lab.prepare("one", gpu0=(1, 10)), lab.prepare("two", gpu0=(2, 20), gpu1=(0, 30))
    first, second = lab.container("first"), lab.container("second", pod="pod2")
    hooks = [lab.start_hook(share, container) for share in (one, two) for container in (first, second)]
    assert [ended(each) for each in hooks] == [(0, "")] * 4
    for container in (first, second):
        assert [lab.fence_of(container, gpu) for gpu in (0, 1)] == [(3, 30), (0, 30)]
    for share in (one, two):
        lab.unprepare(share)
    assert lab.left() == []


def test_many_at_once(lab: Lab) -> None:
    """More than there are threads."""
    lab.serve(wait_seconds=30)
    share = lab.prepare(gpu0=(0, 10))
    containers = [lab.container(f"c{number}") for number in range(24)]
    hooks = [lab.start_hook(share, each) for each in containers]
    assert {ended(each) for each in hooks} == {(0, "")}
    assert {lab.fence_of(each) for each in containers} == {(0, 10)}


def refused(lab: Lab, share: ShareName, container: Container, said: str, *, state: str | None = None) -> None:
    code, err = ended(lab.start_hook(share, container, state=state))
    begin = f"gpu-dra: GPU memory of share {share.key} of claim {share.claim_uid} cannot be limited: "
    assert code == 1
    assert err.startswith(begin), err
    assert err.count("\n") == 1
    assert said in err


def test_refusals_are_a_sentence_and_an_exit_code(lab: Lab) -> None:
    lab.serve()
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    refused(lab, ShareName(CLAIM, "other"), container, "is not prepared on this node")
    refused(lab, ShareName(CLAIM, "a;b"), container, "cannot be part of the name")
    refused(lab, share, container, "no OCI state", state="{}")
    refused(lab, share, container, "no OCI state", state="")
    refused(lab, share, Container("c1", 999999), "process 999999 of container c1 is not there")
    refused(lab, share, Container("another", container.pid), "which is not a cgroup of container another alone")
    faults.inject_error(lab.state_file, "nvmlDeviceSetMemoryLimits_v1", 4, times=1)
    refused(lab, share, container, "NVML_ERROR_NO_PERMISSION: setting memory limits needs root")
    assert lab.fence_of(container) == (0, None)
    assert lab.run_hook(share, container) == (0, "")


def test_a_library_that_breaks_is_a_refusal_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.serve()
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()

    def breaks(*_arguments: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(lab.limits, "set", breaks)
    refused(lab, share, container, "unexpected RuntimeError: a defect")


def test_the_wrong_arguments_and_a_missing_folder(lab: Lab) -> None:
    lab.serve()
    script = lab.plugin / hook.FILE
    done = subprocess.run(["/bin/sh", script, "one"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, "takes a claim and a share" in done.stderr) == (1, True)
    lab.servers.pop().stop()
    shutil.rmtree(lab.plugin / requests.FOLDER)
    refused(lab, lab.prepare(gpu0=(0, 10)), lab.container(), "no request can be made in")


# -- a plugin that is not there, or slow ---------------------------------------------------------------------------------


def test_without_a_plugin_no_container_starts(lab: Lab) -> None:
    lab.serve(wait_seconds=1)
    lab.servers.pop().stop()
    container = lab.container()
    refused(lab, lab.prepare(gpu0=(0, 10)), container, "no answer in 1 s; is its pod running on this node?")
    assert lab.fence_of(container) == (0, None)


def test_a_plugin_that_starts_meanwhile_answers(lab: Lab) -> None:
    lab.serve(wait_seconds=30)
    lab.servers.pop().stop()
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    waiting = lab.start_hook(share, container)
    wait_until(lambda: list((lab.plugin / requests.FOLDER).glob(f"*/{requests.STATE}")), "the hook has asked")
    lab.serve(wait_seconds=30)
    assert ended(waiting) == (0, "")
    assert lab.fence_of(container) == (0, 10)


def test_what_a_hook_has_given_up_is_not_done_later(lab: Lab) -> None:
    """Its process may be another container's by then."""
    lab.serve(wait_seconds=1)
    lab.servers.pop().stop()
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    assert lab.run_hook(share, container)[0] == 1
    lab.serve(wait_seconds=1)
    wait_until(
        lambda: not list((lab.plugin / requests.FOLDER).glob(f"*/{requests.STATE}")), "the server has looked at it"
    )
    assert lab.run_hook(share, other := lab.container("other")) == (0, "")
    assert lab.fence_of(other) == (0, 10)
    assert lab.fence_of(container) == (0, None)


def test_a_gpu_that_does_not_answer_costs_only_its_own_containers(lab: Lab) -> None:
    lab.serve(wait_seconds=2)
    sick, well = lab.prepare("sick", gpu0=(0, 10)), lab.prepare("well", gpu1=(0, 10))
    faults.inject_latency(lab.state_file, "nvmlDeviceSetMemoryLimits_v1", 4.0, gpu=0)
    first, second = lab.container("first"), lab.container("second")
    slow = lab.start_hook(sick, first)
    wait_until(lambda: list(lab.records.glob("*sick*")), "the slow one has begun")
    assert lab.run_hook(well, second) == (0, "")
    code, err = ended(slow)
    assert (code, "no answer in 2 s" in err) == (1, True)
    wait_until(
        lambda: list((lab.plugin / requests.FOLDER).glob(f"*/{requests.ANSWER}")), "the call has come back after all"
    )


def test_two_plugins_that_overlap_answer_each_request_once(lab: Lab) -> None:
    lab.serve()
    lab.serve()
    share = lab.prepare(gpu0=(1, 10))
    containers = [lab.container(f"c{number}") for number in range(8)]
    hooks = [lab.start_hook(share, each) for each in containers]
    assert {ended(each) for each in hooks} == {(0, "")}
    assert lab.reserved() == 8
    lab.servers.pop(0).stop()
    late = lab.container("late")
    assert lab.run_hook(share, late) == (0, "")
    assert lab.fence_of(late) == (1, 10)


def test_the_start_clears_what_is_no_longer_prepared(lab: Lab) -> None:
    share, container = lab.prepare(gpu0=(5, 10)), lab.container()
    lab.keeper().fence(share, container)
    del lab.shares.limits[CLAIM, SHARE]
    lab.serve()
    wait_until(lambda: lab.left() == [], "all is cleared")


def test_all_of_the_room_put_together(lab: Lab) -> None:
    room = build(lab.plugin, lab.shares, hierarchy=lab.hierarchy, boot_id=lambda: lab.boot, proc=lab.proc)
    assert room.limits.why_not(lab.gpus[0]) is None
    room.server.start()
    lab.plugin /= FOLDER
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    assert room.hook.script == lab.plugin / hook.FILE
    assert lab.run_hook(share, container) == (0, "")
    assert [each.standing_still() for each in room.server.loops] == [None, None]
    room.keeper.clear(CLAIM, SHARE)
    assert lab.fence_of(container) == (0, None)
    room.stop()
    room.stop()
    assert not any(each.overdue() for each in room.server.loops)


# -- files ---------------------------------------------------------------------------------------------------------------


def test_the_script_replaces_another_versions_and_stays(lab: Lab) -> None:
    lab.plugin.mkdir()
    path = lab.plugin / hook.FILE
    path.write_text("another version's")
    before = path.stat().st_ino
    server = lab.serve()
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    server.stop()
    assert path.exists()
    for name in (requests.FOLDER, lab.records.name):
        assert stat.S_IMODE((lab.plugin / name).stat().st_mode) == 0o700


def test_folders_of_hooks_that_are_gone_are_swept(tmp_path: Path) -> None:
    now = time.time()
    mine = Requests(tmp_path / "requests", 10, wall_clock=lambda: now)
    mine.open()
    for name in ("1.0", "2.0"):
        (tmp_path / "requests" / name).mkdir()
    os.utime(tmp_path / "requests/1.0", (now - 30, now - 30))
    mine.sweep()
    assert sorted(each.name for each in (tmp_path / "requests").iterdir()) == ["2.0", requests.BELL]
    mine.close()


def test_what_is_no_bell_becomes_one(tmp_path: Path) -> None:
    (tmp_path / requests.BELL).write_text("")
    mine = Requests(tmp_path, 10)
    mine.open()
    (tmp_path / requests.BELL).write_text("\n" * 1000)
    mine.wait(60)
    started = time.monotonic()
    mine.wait(0.05)
    assert time.monotonic() - started >= 0.04
    mine.wake()
    mine.wait(60)
    mine.close()
    mine.close()
    mine.wake()


# -- with real cgroups and processes -----------------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path, real_cgroups: RealCgroups) -> Iterator[Lab]:
    state = tmp_path / "gpus.json"
    create_state("h100-sxm5-80gb", state, seed="node", driver=DRIVER)
    lab = Lab(tmp_path, state, real_cgroups.hierarchy)
    host_root.build(tmp_path / "host", state)
    lab.proc = Path("/proc")
    install(state)
    nvml = NvmlHardware(driver_root=tmp_path / "host")
    nvml.start()
    yield lab
    lab.close()
    nvml.stop()
    uninstall()


@pytest.mark.root
@needs_v2
def test_a_container_has_what_its_share_has_from_its_first_instruction(real: Lab, real_cgroups: RealCgroups) -> None:
    """It waits as a container does while its hooks run."""
    real.serve()
    share = real.prepare(gpu0=(0, 10))
    go, client = real.folder / "go", real.folder / "host" / scripts.CLIENT_PATH
    os.mkfifo(go)
    begin = f'read -r _ <{go}; "{client}" --allocate 10G && exec "{client}" --allocate 11G'
    cgroup = real_cgroups.make("kubepods/pod1/abc")
    process = real_cgroups.start(cgroup, ["/bin/sh", "-c", begin], CUDA_VISIBLE_DEVICES="0")
    wait_until(lambda: str(process.pid) in (cgroup / "cgroup.procs").read_text().split(), "it is in its cgroup")
    assert real.run_hook(share, Container("abc", process.pid)) == (0, "")
    go.write_text("go\n")
    out, err = process.communicate(timeout=30)
    assert [facts(out)[name] for name in ("memory.0", "allocated")] == ["10240M", "10240M"]
    assert process.returncode == 1
    assert "CUDA_ERROR_OUT_OF_MEMORY" in err
    assert "10240M may be had" in err
    real.unprepare(share)
    assert real.left() == []
