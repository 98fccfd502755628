"""The control daemon and its command language, through the program in the node's tree."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.simulation.hardware.mps.conftest import MpsNode, facts, is_running, wait_until

pytestmark = pytest.mark.process


def test_it_starts_answers_and_quits(node: MpsNode) -> None:
    assert node.control(text="get_server_list\n") == (1, "", "Cannot find MPS control daemon process\n")
    pid = node.start()
    assert is_running(pid)
    assert os.getsid(pid) != os.getsid(0)
    assert node.control(text="get_server_list\n") == (0, "", "")
    assert node.control(text="get_default_active_thread_percentage") == (0, "100.0\n", "")
    modes = {each.name: stat.filemode(each.stat().st_mode) for each in node.pipe.iterdir()}
    assert modes.keys() == {
        "clients",
        "control",
        "control_lock",
        "control_privileged",
        "log",
        "nvidia-cuda-mps-control.pid",
    }
    assert modes["control"] == "prw-rw-rw-"
    log = (node.logs / "control.log").read_text()
    assert f"Starting control daemon using socket {node.pipe}/control" in log
    assert "Cmd:get_default_active_thread_percentage" in log
    assert (node.logs / "server.log").exists()
    assert node.say("quit") == []
    wait_until(lambda: not is_running(pid), "the daemon ends")
    assert [each.name for each in node.pipe.iterdir()] == ["control_lock"]
    assert node.control(text="quit\n")[0] == 1


def test_a_second_one_in_the_same_directory_is_refused(node: MpsNode) -> None:
    pid = node.start()
    assert node.control("-d") == (1, "", "An instance of this daemon is already running\n")
    assert node.daemon() == pid
    assert node.say("get_server_list") == []


def test_what_a_killed_one_left_is_no_hindrance(node: MpsNode) -> None:
    pid = node.start()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the daemon ends")
    assert (node.pipe / "control").exists()
    assert node.control(text="get_server_list\n") == (1, "", "Cannot find MPS control daemon process\n")
    assert node.start() != pid
    assert node.say("get_default_client_priority") == ["0"]


def test_sigterm_ends_it_with_its_servers(node: MpsNode) -> None:
    pid = node.start()
    node.say("start_server -uid 0")
    (server,) = node.say("get_server_list")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_running(pid), "the daemon ends")
    assert not is_running(int(server))
    assert all(not gpu.clients for gpu in node.state.gpus)
    assert not (node.pipe / "control").exists()


def test_in_the_foreground_it_logs_to_the_terminal(node: MpsNode) -> None:
    command = [str(node.root / "usr/bin/nvidia-cuda-mps-control"), "-f"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=node.environment())
    try:
        assert running.stdout is not None
        assert "Starting control daemon" in running.stdout.readline()
        assert node.daemon() == running.pid
        assert node.say("quit") == []
        running.communicate(timeout=20)
        assert running.returncode == 0
    finally:
        running.kill()
        running.communicate()


def test_it_says_when_it_cannot_start(node: MpsNode, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = node.control("-d", CUDA_MPS_LOG_DIRECTORY=str(tmp_path / "file" / "log"))
    assert (code, out) == (1, "")
    assert "Not a directory" in err
    assert node.control("-d", CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="101")[0] == 1
    code, _, err = node.control("-x")
    assert code == 1
    assert err.startswith("usage: ")


def test_defaults_are_set_and_read(node: MpsNode) -> None:
    node.start(devices=f"{node.uuids[3]},{node.uuids[5]}")
    assert node.say(
        "set_default_active_thread_percentage 25",
        "get_default_active_thread_percentage",
        "get_default_device_pinned_mem_limit 1",
        f"set_default_device_pinned_mem_limit {node.uuids[5]} 20350M",
        "get_default_device_pinned_mem_limit 1",
        "set_default_device_pinned_mem_limit 0 2048M",
        f"get_default_device_pinned_mem_limit {node.uuids[3]}",
        "set_default_client_priority 1",
        "get_default_client_priority",
    ) == ["25.0", "25.0", "none", "20350M", "2G", "1"]


def test_defaults_come_from_the_environment(node: MpsNode) -> None:
    limits = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "30", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=1G,1=512M"}
    node.start(**limits)
    assert node.say("get_default_active_thread_percentage", "get_default_device_pinned_mem_limit 1") == ["30.0", "512M"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("set_default_active_thread_percentage 101", "Invalid active thread percentage 101"),
        ("set_default_active_thread_percentage -1", "Invalid active thread percentage -1"),
        ("set_default_active_thread_percentage half", "Invalid active thread percentage half"),
        ("set_default_active_thread_percentage", "Usage: set_default_active_thread_percentage PERCENTAGE"),
        ("set_default_device_pinned_mem_limit 0 10", "Invalid memory limit 10"),
        ("set_default_device_pinned_mem_limit 0 0M", "Invalid memory limit 0M"),
        ("set_default_device_pinned_mem_limit 0 1.5G", "Invalid memory limit 1.5G"),
        ("set_default_client_priority 2", "Invalid client priority 2"),
        ("get_server_status 42", "No MPS server has the PID 42"),
        ("shutdown_server 42", "No MPS server has the PID 42"),
        ("shutdown_server one", "Invalid PID one"),
        ("start_server -uid me", "Invalid UID me"),
        ("start_server 0 0", "Usage: start_server -uid UID"),
        ("quit -t", "Usage: quit [-t TIMEOUT]"),
        ("ps -x 1", "Usage: ps [-p PID]"),
        ("get_server_lists", "Unknown command get_server_lists"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(node: MpsNode, line: str, said: str) -> None:
    node.start()
    (first, *after) = node.say(
        line, "get_default_active_thread_percentage", "get_default_device_pinned_mem_limit 0", "get_server_list"
    )
    assert first.startswith(said)
    assert after == ["100.0", "none"]


def test_help_names_the_commands(node: MpsNode) -> None:
    node.start()
    names = {line.split()[0] for line in node.say("help")}
    assert {"get_server_list", "ps", "quit", "terminate_client", "set_device_pinned_mem_limit"} <= names


def test_servers_are_started_and_shut_down(node: MpsNode) -> None:
    node.start(devices="2")
    node.say("start_server -uid 1000")
    (server,) = node.say("get_server_list")
    assert node.say(f"get_server_status {server}") == ["ACTIVE"]
    assert node.used_by(node.uuids[2]) == [(int(server), int(server))]
    assert node.used_by(node.uuids[0]) == []
    assert node.say(
        f"set_active_thread_percentage {server} 40",
        f"get_active_thread_percentage {server}",
        f"set_device_pinned_mem_limit {server} 0 3G",
        f"get_device_pinned_mem_limit {server} {node.uuids[2]}",
        "get_default_active_thread_percentage",
    ) == ["40.0", "40.0", "3G", "100.0"]
    assert node.say(f"shutdown_server {server} -f", "get_server_list") == []
    assert node.used_by(node.uuids[2]) == []


def test_a_wrong_device_is_found_by_the_first_server(node: MpsNode) -> None:
    node.start(devices="GPU-00000000-0000-0000-0000-000000000000")
    code, out, err = node.run_client()
    assert (code, out) == (1, "")
    assert err == "CUDA_ERROR_MPS_CONNECTION_FAILED: the MPS server did not start\n"
    assert "exited with status 1" in (node.logs / "control.log").read_text()
    assert node.say("get_server_list") == []


def test_the_version(node: MpsNode) -> None:
    assert node.control("-v") == (0, "CUDA MPS Control binary version: 13000\n", "")


def test_the_server_is_not_for_people(node: MpsNode) -> None:
    done = subprocess.run([node.root / "usr/bin/nvidia-cuda-mps-server"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "nvidia-cuda-mps-control starts it" in done.stderr


def test_a_client_gets_a_server(node: MpsNode) -> None:
    node.start(devices=node.uuids[1])
    code, out, err = node.run_client()
    assert (code, err) == (0, "")
    got = facts(out)
    assert node.say("get_server_list") == [got["server"]]
    assert got["mps"] == "yes"
    assert got["device.0"] == node.uuids[1]
