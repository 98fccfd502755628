"""Groups of protocol 3 and their shares, on real daemons of a simulated node, by a supervisor in this process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.mps import errors
from dra_driver.mps.group import GroupState, GroupStatus, MpsShare, ShareStatus
from dra_driver.processes import Process
from dra_driver.simulation.hardware.faults import clear_faults, inject_mps_fault
from kubelet_plugin.mps_supervisor import canary
from kubelet_plugin.mps_supervisor import record as records
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE, Lab, ended

pytestmark = pytest.mark.process


def shares(lab: Lab) -> tuple[ShareStatus, ...]:
    status = lab.status()
    assert status is not None
    return status.shares


def behind(lab: Lab, cases: str) -> None:
    """Put a program before the control program that has ``cases`` of its own for "$*" ($real: the real one)."""
    program = lab.host / "usr/bin/nvidia-cuda-mps-control"
    real = program.rename(program.with_name("real-control"))
    program.write_text(f'#!/bin/sh\nreal={real}\ncase "$*" in {cases} esac\nexec $real "$@"\n')
    program.chmod(0o755)


def test_the_node_says_what_it_can_by_what_its_program_says(lab: Lab) -> None:
    with lab.in_process():
        assert lab.client.protocols() == (2,)
        with pytest.raises(errors.GroupRefused, match=r"does not know protocol 3.*r615"):
            lab.client.start(lab.named_group())
        assert lab.left() == []
        # A driver that is replaced is asked anew, without a word about its version.
        script = lab.host / "usr/bin/nvidia-cuda-mps-control"
        script.write_text("#!/bin/sh\n[ \"$*\" = '-p 3 -h' ] && echo 'modules: server, namespace, client'\n")
        eventually(lambda: lab.client.protocols() == (2, 3), PATIENCE)


def test_a_share_is_put_used_listed_and_removed(named: Lab) -> None:
    with named.in_process():
        assert named.client.protocols() == (2, 3)
        group, share = named.named_group(), named.share()
        started = named.client.start(group)
        assert (started.group, started.state, started.shares) == (group, GroupState.READY, ())
        assert named.compute_modes()[:2] == [ComputeMode.EXCLUSIVE_PROCESS, ComputeMode.DEFAULT]
        status = named.client.put_share(group.id, share)
        assert status == replace(started, shares=(ShareStatus(share),))
        assert named.client.groups() == (status,)
        got = named.facts("a", "--allocate", "10G")
        assert (got["namespace"], got["memory_limit.0"], got["active_thread_percentage"]) == ("a", "10G", "25.0")
        assert "CUDA_ERROR_OUT_OF_MEMORY" in named.refused_client("--allocate", "10241M", share="a")
        named.client.remove_share(group.id, "a")
        assert shares(named) == ()
        assert not named.folders().share("a").exists()
        # EXCLUSIVE_PROCESS: who is led to nowhere gets nothing, and not the whole GPU.
        assert "CUDA_ERROR_DEVICE_UNAVAILABLE" in named.refused_client(share="a")
        named.client.stop(group.id)
        assert named.left() == []


def test_calls_may_be_repeated_and_other_limits_are_refused(named: Lab) -> None:
    with named.in_process():
        named.client.start(named.named_group())
        first = named.client.put_share("claim-1", named.share())
        assert named.client.put_share("claim-1", named.share()) == first
        with pytest.raises(errors.GroupDiffers, match=r"pinned memory mib .*10240.*, asked for is .*20480"):
            named.client.put_share("claim-1", named.share(memory=20480))
        with pytest.raises(errors.GroupDiffers, match="low priority False, asked for is True"):
            named.client.put_share("claim-1", replace(named.share(), low_priority=True))
        assert named.facts("a")["memory_limit.0"] == "10G"
        named.client.remove_share("claim-1", "a")
        named.client.remove_share("claim-1", "a")
        named.client.remove_share("nobody", "a")
        assert shares(named) == ()
        named.client.put_share("claim-1", named.share(memory=20480))
        assert named.facts("a")["memory_limit.0"] == "20G"
        named.client.stop("claim-1")
        assert named.left() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "A"}, "name of share 'A' must be at most 64"),
        ({"name": "a" * 65}, "must be at most 64"),
        ({"name": "../b"}, "must be at most 64"),
        ({"name": ""}, "must be at most 64"),
        ({"name": "default"}, "none of default, control, log"),
        ({"active_thread_percentage": 0}, "percentage 0 must be 1 to 100"),
        ({"pinned_memory_mib": {"GPU-x": 1}}, "limit of GPU-x, which is not one of its devices"),
    ],
)
def test_a_share_that_cannot_be_had_is_refused(named: Lab, change: dict[str, object], words: str) -> None:
    with named.in_process():
        named.client.start(named.named_group())
        with pytest.raises(errors.GroupRefused, match=words):
            named.client.put_share("claim-1", replace(named.share(), **change))  # type: ignore[arg-type]
        assert shares(named) == ()
        assert len(named.mps_control("namespace", "list", "--format=csv,noheader")) == 1


def test_memory_has_one_size_on_all_gpus_of_a_share(named: Lab) -> None:
    one, other = named.uuids[:2]
    with named.in_process():
        named.client.start(named.named_group(gpus=(0, 1)))
        with pytest.raises(errors.GroupRefused, match="has one for all"):
            named.client.put_share("claim-1", MpsShare("a", {one: 1024, other: 2048}))
        named.client.put_share("claim-1", MpsShare("a", {one: 1024, other: 1024}, low_priority=True))
        got = named.facts("a")
        assert [got[each] for each in ("memory_limit.0", "memory_limit.1", "client_priority")] == ["1G", "1G", "1"]
        assert got["active_thread_percentage"] == "100.0"


def test_shares_need_a_group_of_protocol_3_that_runs(named: Lab) -> None:
    with named.in_process():
        with pytest.raises(errors.GroupFailed, match="MPS group claim-1 does not run"):
            named.client.put_share("claim-1", named.share())
        named.client.start(named.group())
        with pytest.raises(errors.GroupRefused, match="the group has protocol 2, shares come with 3"):
            named.client.put_share("claim-1", named.share())
        with pytest.raises(errors.GroupDiffers, match="protocol 2, asked for is 3"):
            named.client.start(named.named_group())
        named.client.stop("claim-1")
        assert named.left() == []


def test_the_server_is_roots_in_multi_user_mode_and_else_whoever_asked_for_it(named: Lab) -> None:
    with named.in_process():
        for multi_user, uid in ((False, os.getuid()), (True, 0)):
            named.client.start(named.named_group(multi_user=multi_user))
            assert named.mps_control("server", "get", "gpus", "uid") == [str(uid)]
            named.client.stop("claim-1")
        assert named.left() == []


def test_eight_shares_at_once(named: Lab) -> None:
    with named.in_process():
        named.client.start(named.named_group())
        wanted = [named.share(f"share_{number}", memory=1024 * (number + 1), percentage=12) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda share: named.client.put_share("claim-1", share), wanted))
        assert shares(named) == tuple(ShareStatus(each) for each in wanted)
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda share: named.facts(share.name)["memory_limit.0"], wanted))
            assert got == [f"{number + 1}G" for number in range(8)]
            list(pool.map(lambda share: named.client.remove_share("claim-1", share.name), wanted))
        assert shares(named) == ()
        named.client.stop("claim-1")
        assert named.left() == []


def test_a_server_that_is_accepted_and_then_gone_is_no_group(named: Lab) -> None:
    behind(named, '"server create"*) exec $real server create gpus --allowed-devices=GPU-00000000 ;;')
    with named.in_process():
        with pytest.raises(errors.GroupFailed, match=r"MPS server of group claim-1 ended at once: .*CUDA_ERROR_NO_DEV"):
            named.client.start(named.named_group())
        assert named.left() == []


def test_a_server_with_another_gpu_is_no_group(named: Lab) -> None:
    behind(named, f'"server create"*) exec $real server create gpus --allowed-devices={named.uuids[3]} ;;')
    with named.in_process("--mps-start-timeout=1s"):
        with pytest.raises(errors.GroupTimeout, match=f"does not have device {named.uuids[0]}"):
            named.client.start(named.named_group())
        assert named.left() == []


def test_limits_that_read_back_otherwise_are_no_share(named: Lab) -> None:
    """The program is one that says yes to "namespace set" and does nothing."""
    behind(named, '"namespace set"*) exit 0 ;;')
    with named.in_process():
        named.client.start(named.named_group())
        with pytest.raises(errors.GroupFailed, match="removed again: its pinned memory limit is none, not 10240 MiB"):
            named.client.put_share("claim-1", named.share())
        assert shares(named) == ()
        assert len(named.mps_control("namespace", "list", "--format=csv,noheader")) == 1
        assert not named.folders().share("a").exists()


def accepted(lab: Lab, command: Sequence[str]) -> bool:
    """A namespace with a client is not deleted, and for a moment the canary is one, or a client that has ended."""
    try:
        lab.mps_control(*command)
    except AssertionError:
        return False
    return True


def test_a_share_whose_limits_were_changed_or_taken_away_is_told_and_put_right(named: Lab) -> None:
    told: list[tuple[GroupStatus, ...]] = []
    with named.in_process():
        named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share())
        watch = named.client.watch(told.append)
        watch.start()
        try:
            for command, words in (
                (("namespace", "set", "a", "--server=gpus", "--pinned-memory-limit=70G"), "is 71680 MiB, not 10240"),
                (("namespace", "set", "a", "--server=gpus", "--active-thread-percentage=90"), "is 90.0, not 25"),
                (("namespace", "delete", "a", "--server=gpus"), "it is gone from the daemon"),
            ):
                eventually(lambda command=command: accepted(named, command), PATIENCE)  # type: ignore[misc]
                eventually(lambda words=words: any(words in str(each) for each in told), PATIENCE)  # type: ignore[misc]
                named.wait_for(GroupState.READY)
                assert shares(named) == (ShareStatus(named.share()),)
                assert named.facts("a")["memory_limit.0"] == "10G"
        finally:
            watch.stop()
        wedged = [status for (status,) in told if status.state is GroupState.WEDGED]
        assert all(status.message.startswith("share a has not its limits: ") for status in wedged)
        assert [each.message != "" for status in wedged for each in status.shares] == [True] * len(wedged)


def test_a_share_whose_folder_is_taken_away_is_made_anew(named: Lab) -> None:
    with named.in_process():
        named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share())
        folder = named.folders().share("a")
        shutil.rmtree(folder)
        eventually(lambda: (folder / "control").exists() and named.state() is GroupState.READY, PATIENCE)
        assert named.facts("a")["memory_limit.0"] == "10G"


def test_a_group_without_its_server_gets_another_daemon_with_all_its_shares(named: Lab) -> None:
    with named.in_process():
        first = named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share("a"))
        named.client.put_share("claim-1", named.share("b", memory=2048))
        client = named.counting(share="a")
        (server,) = named.mps_control("server", "get", "gpus", "pid")
        os.kill(int(server), signal.SIGKILL)
        assert client.process.wait(PATIENCE) == 1
        eventually(lambda: getattr(named.status(), "pid", 0) not in (0, first.pid), PATIENCE)
        named.wait_for(GroupState.READY)
        assert [each.share.name for each in shares(named)] == ["a", "b"]
        assert [named.facts(each)["memory_limit.0"] for each in "ab"] == ["10G", "2G"]


def test_a_server_that_lets_nothing_through_is_found_by_the_canary_on_that_very_server(
    named: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "_SECONDS", 2.0)
    with named.in_process():
        first = named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share())
        quick = named.counting(share="a")
        eventually(lambda: getattr(named.status(), "clients", 0) == 1, PATIENCE)
        quick.end(signal.SIGTERM)  # which the canary follows up: work gets through, and no other server is made
        eventually(lambda: getattr(named.status(), "clients", 1) == 0, PATIENCE)
        assert named.state() is GroupState.READY
        inject_mps_fault(named.state_file, wedge=True)
        bystander, victim = named.counting(share="a"), named.counting(share="a")
        eventually(lambda: getattr(named.status(), "clients", 0) == 2, PATIENCE)
        victim.end(signal.SIGKILL)
        named.wait_for(GroupState.WEDGED)
        assert "started anew when no client is left (1 now)" in str(named.status())
        assert [row.split(",")[0] for row in named.mps_control("server", "list", "--format=csv,noheader")] == ["gpus"]
        clear_faults(named.state_file)
        bystander.end(signal.SIGTERM)
        eventually(lambda: getattr(named.status(), "pid", 0) not in (0, first.pid), PATIENCE)
        named.wait_for(GroupState.READY)
        assert named.facts("a")["memory_limit.0"] == "10G"


def test_a_dead_group_that_is_asked_for_again_has_its_shares(named: Lab) -> None:
    with named.in_process():
        first = named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share())
        os.kill(first.pid, signal.SIGKILL)
        named.wait_for(GroupState.DEAD)
        assert [each.share for each in shares(named)] == [named.share()]
        with pytest.raises(errors.GroupFailed, match="is Dead: its daemon"):
            named.client.put_share("claim-1", named.share("b"))
        again = named.client.start(named.named_group())
        assert (again.state, again.shares) == (GroupState.READY, (ShareStatus(named.share()),))
        assert named.facts("a")["memory_limit.0"] == "10G"
        os.kill(again.pid, signal.SIGKILL)
        named.wait_for(GroupState.DEAD)
        named.client.remove_share("claim-1", "a")  # it has ended with its daemon
        assert named.client.start(named.named_group()).shares == ()
        named.client.stop("claim-1")
        assert named.left() == []


def test_the_next_supervisor_knows_the_shares_and_touches_no_client(named: Lab) -> None:
    with named.in_process():
        before = named.client.start(named.named_group())
        status = named.client.put_share("claim-1", named.share())
        client = named.counting(share="a")
    client.still_counts()
    with named.in_process():
        eventually(lambda: getattr(named.status(), "clients", 0) == 1, PATIENCE)
        assert named.status() == replace(status, clients=1)
        assert named.client.put_share("claim-1", named.share()).pid == before.pid
        client.still_counts()
        client.end(signal.SIGTERM)
        named.client.stop("claim-1")
        assert named.left() == []


def test_what_a_supervisor_left_half_way_the_next_one_finishes(named: Lab) -> None:
    with named.in_process():
        named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share("leaves"))
    record = records.read(named.folders())
    assert record is not None
    half = replace(record, shares=(*record.shares, named.share("comes")), leaving=frozenset({"leaves"}))
    records.write(named.folders(), half)
    with named.in_process():
        eventually(lambda: not named.folders().share("leaves").exists(), PATIENCE)
        eventually(lambda: shares(named) == (ShareStatus(named.share("comes")),), PATIENCE)
        named.wait_for(GroupState.READY)
        assert named.facts("comes")["memory_limit.0"] == "10G"
        eventually(lambda: getattr(records.read(named.folders()), "leaving", None) == frozenset(), PATIENCE)


def test_a_daemon_that_hangs_at_a_share_is_told_and_what_was_begun_is_taken_back(
    named: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_plugin.mps_supervisor.named.ANSWER_SECONDS", 0.5)
    with named.in_process():
        named.client.start(named.named_group())
        inject_mps_fault(named.state_file, hang=("namespace create",))
        with pytest.raises(errors.GroupTimeout, match="no answer to namespace create a"):
            named.client.put_share("claim-1", named.share())
        clear_faults(named.state_file)
        assert shares(named) == ()
        named.client.put_share("claim-1", named.share())
        named.client.stop("claim-1")
        assert named.left() == []


def test_a_daemon_that_dies_at_a_share_makes_it_fail(named: Lab) -> None:
    with named.in_process():
        status = named.client.start(named.named_group())
        daemon = Process.of(status.pid)
        assert daemon is not None
        inject_mps_fault(named.state_file, crash=("namespace set",))
        with pytest.raises(errors.MpsError):
            named.client.put_share("claim-1", named.share())
        eventually(ended(daemon), PATIENCE)
        named.wait_for(GroupState.DEAD)
        clear_faults(named.state_file)
        assert named.client.start(named.named_group()).shares == ()
        named.client.stop("claim-1")
        assert named.left() == []


def test_a_stop_gives_clients_of_shares_their_time(named: Lab) -> None:
    with named.in_process("--mps-drain-timeout=10s"):
        named.client.start(named.named_group())
        named.client.put_share("claim-1", named.share())
        client = named.counting(share="a")
        with ThreadPoolExecutor(1) as pool:
            stop = pool.submit(named.client.stop, "claim-1")
            named.wait_for(GroupState.STOPPING)
            client.still_counts()
            client.end(signal.SIGTERM)
            assert client.process.returncode == 0
            stop.result(PATIENCE)
        assert named.left() == []
