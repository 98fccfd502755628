"""The faults of MPS: slow, silent, dead, and the server that a killed client leaves wedged."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from dra_driver.simulation.hardware import faults
from dra_driver.simulation.hardware.mps.devices import State
from dra_driver.simulation.hardware.mps.faults import Played
from tests.simulation.hardware.mps.conftest import MpsNode, facts, is_running, wait_until

pytestmark = pytest.mark.process


def waiting_control(node: MpsNode, *options: str, text: str = "") -> subprocess.Popen[str]:
    """The program, not waited for."""
    program = subprocess.Popen(
        [str(node.root / "usr/bin/nvidia-cuda-mps-control"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=node.environment(),
    )
    assert program.stdin is not None
    program.stdin.write(text)
    program.stdin.close()
    program.stdin = None
    node.clients.append(program)
    return program


def log(node: MpsNode) -> str:
    return (node.logs / "control.log").read_text()


def test_a_slow_daemon(node: MpsNode) -> None:
    faults.inject_mps_fault(node.state_file, gpu=3, start_seconds=30, answer_seconds=2)
    faults.inject_mps_fault(node.state_file, answer_seconds=0.5)
    slept: list[float] = []
    for devices in (node.uuids[3], "2"):
        played = Played(State(node.state_file), devices, slept.append)
        played.at_start()
        played.before("ps")
    assert slept == [30, 2, 0, 0.5]


def test_a_slow_daemon_starts_and_answers_all_the_same(node: MpsNode) -> None:
    faults.inject_mps_fault(node.state_file, start_seconds=0.05, answer_seconds=0.05)
    node.start()
    assert node.say("get_default_active_thread_percentage") == ["100.0"]


def test_a_fault_of_another_gpu_is_not_played(node: MpsNode) -> None:
    faults.inject_mps_fault(node.state_file, gpu=3, hang=("start", "*"))
    node.start(devices="2")
    assert node.say("get_default_active_thread_percentage") == ["100.0"]


def test_a_daemon_that_dies_at_the_start(node: MpsNode) -> None:
    faults.inject_mps_fault(node.state_file, crash=("start",))
    assert node.control("-d") == (1, "", "The MPS control daemon has ended at once\n")
    faults.clear_faults(node.state_file)
    node.start()


def test_a_daemon_that_dies_of_a_command(node: MpsNode) -> None:
    pid = node.start()
    faults.inject_mps_fault(node.state_file, crash=("ps",))
    assert node.say("get_server_list") == []
    assert node.control(text="ps\n") == (1, "", "Cannot find MPS control daemon process\n")
    wait_until(lambda: not is_running(pid), "the daemon ends")


def test_a_daemon_that_dies_of_a_client(node: MpsNode) -> None:
    node.start()
    faults.inject_mps_fault(node.state_file, crash=("client",))
    code, _, err = node.run_client()
    assert (code, err) == (1, "CUDA_ERROR_MPS_CONNECTION_FAILED: the MPS daemon or server is gone\n")


def test_a_daemon_that_does_not_answer(node: MpsNode) -> None:
    pid = node.start()
    faults.inject_mps_fault(node.state_file, hang=("*", "SIGTERM"))
    asking = waiting_control(node, text="get_server_list\n")
    wait_until(lambda: "Cmd:get_server_list" in log(node), "the daemon has taken the command")
    client = node.start_client()
    wait_until(lambda: log(node).count("Accepting connection") == 2, "the daemon has taken the client")
    os.kill(pid, signal.SIGTERM)
    again = waiting_control(node, text="ps\n")
    wait_until(lambda: "Cmd:ps" in log(node), "the daemon lives on")
    assert [each.poll() for each in (asking, client, again)] == [None, None, None]
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)
    assert asking.communicate(timeout=20)[1] == "Cannot find MPS control daemon process\n"
    assert client.communicate(timeout=20)[1] == "CUDA_ERROR_MPS_CONNECTION_FAILED: the MPS daemon or server is gone\n"
    assert (asking.returncode, client.returncode) == (1, 1)


def test_one_command_that_is_never_answered_holds_up_no_other(node: MpsNode) -> None:
    node.start()
    faults.inject_mps_fault(node.state_file, hang=("quit",))
    quitting = waiting_control(node, text="quit\n")
    wait_until(lambda: "Cmd:quit" in log(node), "the daemon has taken the command")
    assert node.say("get_default_active_thread_percentage") == ["100.0"]
    assert quitting.poll() is None


def test_a_start_that_hangs(node: MpsNode) -> None:
    faults.inject_mps_fault(node.state_file, hang=("start",))
    starting = waiting_control(node, "-d")
    wait_until((node.logs / "control.log").exists, "the daemon starts")
    assert node.control(text="get_server_list\n")[0] == 1  # it has the directory, and takes nothing yet
    assert starting.poll() is None
    for pid in node.holders_of_the_lock():
        os.kill(pid, signal.SIGKILL)
    assert starting.communicate(timeout=20)[1] == "The MPS control daemon has ended at once\n"


def test_a_killed_client_wedges_the_server_until_it_is_recycled(node: MpsNode) -> None:
    node.start(devices="0")
    polite, _ = node.counting_client()
    faults.inject_mps_fault(node.state_file, gpu=0, wedge=True)
    polite.terminate()
    assert polite.wait(20) == 0
    server = facts(node.run_client()[1])["server"]
    client, _ = node.counting_client()
    client.kill()
    client.wait()
    wait_until(lambda: node.say(f"get_client_list {server}") == [], "the server notices")
    later = node.start_client()
    wait_until(lambda: "Client waits" in (node.logs / "server.log").read_text(), "a later client has connected")
    assert node.say("get_server_list", f"get_server_status {server}") == [server, "ACTIVE"]
    faults.clear_faults(node.state_file)
    assert later.poll() is None  # wedged still
    assert node.say(f"shutdown_server {server}") == []
    assert later.wait(20) == 1
    assert facts(node.run_client()[1])["server"] != server


def test_terminated_before_it_is_killed_a_client_wedges_nothing(node: MpsNode) -> None:
    node.start(devices="0")
    faults.inject_mps_fault(node.state_file, gpu=0, wedge=True)
    client, _ = node.counting_client()
    (server,) = node.say("get_server_list")
    assert node.say(f"terminate_client {server} {client.pid}") == []
    client.kill()
    client.wait()
    assert facts(node.run_client()[1])["server"] == server
