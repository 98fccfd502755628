"""Clients: what they get, what the limits refuse, and what ends them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import InstanceInUse, MigControl, NvmlHardware
from dra_driver.processes import Process
from dra_driver.simulation.hardware import StateFile, faults, install, uninstall
from dra_driver.simulation.hardware.mps.devices import EXCLUSIVE_PROCESS
from tests.simulation.hardware.mps.conftest import MpsNode, facts, is_running, wait_until

pytestmark = pytest.mark.process


def set_mode(node: MpsNode, gpu: int, mode: int) -> None:
    StateFile(node.state_file).update(
        lambda state: state.with_gpu(gpu, state.gpus[gpu].model_copy(update={"compute_mode": mode}))
    )


def test_it_gets_what_the_server_gives_and_can_only_lower_it(node: MpsNode) -> None:
    node.start(devices="1,4")
    node.say("set_default_active_thread_percentage 50", f"set_default_device_pinned_mem_limit {node.uuids[4]} 10G")
    code, out, err = node.run_client("--allocate", "2G")
    assert (code, err) == (0, "")
    got = facts(out)
    (server,) = node.say("get_server_list")
    pid = got.pop("pid")
    assert pid.isdigit()
    assert got == {
        "mps": "yes",
        "server": server,
        "active_thread_percentage": "50.0",
        "device.0": node.uuids[1],
        "memory.0": "81559M",
        "memory_limit.0": "none",
        "device.1": node.uuids[4],
        "memory.1": "81559M",
        "memory_limit.1": "10G",
        "allocated": "2048M",
    }
    lower = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "20", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=5G,1=4G"}
    got = facts(node.run_client(**lower)[1])
    assert [got[each] for each in ("active_thread_percentage", "memory_limit.0", "memory_limit.1")] == [
        "20.0",
        "5G",
        "4G",
    ]
    higher = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "90", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "1=40G"}
    got = facts(node.run_client(**higher)[1])
    assert [got["active_thread_percentage"], got["memory_limit.1"]] == ["50.0", "10G"]
    got = facts(node.run_client(CUDA_VISIBLE_DEVICES=node.uuids[4])[1])
    assert got["device.0"] == node.uuids[4]
    assert "device.1" not in got


def test_memory_above_the_limit_is_refused(node: MpsNode) -> None:
    node.start(devices="0")
    node.say("set_default_device_pinned_mem_limit 0 10G")
    assert node.run_client("--allocate", "10G")[0] == 0
    code, out, err = node.run_client("--allocate", "10241M")
    assert (code, out) == (1, "")
    assert err.startswith(f"CUDA_ERROR_OUT_OF_MEMORY: out of memory on {node.uuids[0]}")
    assert node.run_client("--allocate", "6G", CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="0=5G")[0] == 1


def test_clients_share_the_memory_of_the_device(node: MpsNode) -> None:
    node.start(devices="0")
    assert node.run_client("--allocate", "79G")[0] == 0
    first = node.start_client("--count", str(node.folder / "a"), "--allocate", "50G")
    wait_until((node.folder / "a").exists, "the first counts")
    code, _, err = node.run_client("--allocate", "40G")
    assert code == 1
    assert "CUDA_ERROR_OUT_OF_MEMORY" in err
    first.terminate()
    assert first.wait(20) == 0
    assert node.run_client("--allocate", "40G")[0] == 0


def test_new_limits_of_a_server_are_for_new_clients_and_defaults_for_new_servers(node: MpsNode) -> None:
    node.start(devices="0")
    assert facts(node.run_client()[1])["active_thread_percentage"] == "100.0"
    (server,) = node.say("get_server_list")
    node.say("set_default_active_thread_percentage 10", "set_default_device_pinned_mem_limit 0 1G")
    got = facts(node.run_client()[1])
    assert [got["active_thread_percentage"], got["memory_limit.0"]] == ["100.0", "none"]
    node.say(f"set_active_thread_percentage {server} 30", f"set_device_pinned_mem_limit {server} 0 2G")
    got = facts(node.run_client()[1])
    assert [got["active_thread_percentage"], got["memory_limit.0"]] == ["30.0", "2G"]
    node.say(f"shutdown_server {server} -f")
    got = facts(node.run_client()[1])
    assert [got["active_thread_percentage"], got["memory_limit.0"]] == ["10.0", "1G"]


def test_processes_are_seen_on_the_device_and_listed(node: MpsNode) -> None:
    node.start(devices="6")
    client, _ = node.counting_client()
    (server,) = node.say("get_server_list")
    uuid = node.uuids[6]
    assert node.used_by(uuid) == sorted([(int(server), int(server)), (client.pid, int(server))], key=str)
    assert node.say(f"get_client_list {server}") == [str(client.pid)]
    assert node.say("get_device_client_list") == [f"{uuid} {client.pid}"]
    heading, row = node.say("ps")
    assert heading.split() == ["PID", "ID", "SERVER", "DEVICE", "NAMESPACE", "COMMAND"]
    namespace = os.readlink("/proc/self/ns/pid").partition("[")[2].rstrip("]")
    assert row.split() == [str(client.pid), "0", server, uuid[:22], namespace, "simulated-cuda-"]
    client.kill()
    client.wait()
    wait_until(lambda: node.say(f"get_client_list {server}") == [], "the client is gone")
    assert node.used_by(uuid) == [(int(server), int(server))]


def test_a_client_counts_until_its_server_is_gone(node: MpsNode) -> None:
    pid = node.start(devices="0")
    client, file = node.counting_client()
    before = int(file.read_text() or 0)
    wait_until(lambda: int(file.read_text() or 0) > before, "the client counts on")
    os.kill(pid, signal.SIGKILL)
    _, err = client.communicate(timeout=20)
    assert client.returncode == 1
    assert err == "CUDA_ERROR_MPS_RPC_FAILURE: the MPS server is gone\n"
    wait_until(lambda: all(not gpu.clients for gpu in node.state.gpus), "nobody uses a device")


def test_a_killed_server_takes_its_clients_and_another_comes(node: MpsNode) -> None:
    node.start(devices="0")
    client, _ = node.counting_client()
    (server,) = node.say("get_server_list")
    os.kill(int(server), signal.SIGKILL)
    assert client.wait(20) == 1
    wait_until(lambda: node.say("get_server_list") == [], "the daemon notices")
    assert node.used_by(node.uuids[0]) == []
    assert facts(node.run_client()[1])["server"] != server


def test_terminate_client_ends_that_client_only(node: MpsNode) -> None:
    node.start(devices="0")
    one, _ = node.counting_client()
    other, file = node.counting_client()
    (server,) = node.say("get_server_list")
    (refused,) = node.say(f"terminate_client {server} 1")
    assert refused == f"MPS server {server} has no client with the PID 1"
    assert node.say(f"terminate_client {server} {one.pid}", f"get_client_list {server}") == [str(other.pid)]
    _, err = one.communicate(timeout=20)
    assert one.returncode == 1
    assert "CUDA_ERROR_MPS_CLIENT_TERMINATED" in err
    before = int(file.read_text() or 0)
    wait_until(lambda: int(file.read_text() or 0) > before, "the other counts on")


def test_quit_waits_for_clients_and_takes_no_new_ones(node: MpsNode) -> None:
    pid = node.start(devices="0")
    client, _ = node.counting_client()
    quitting = subprocess.Popen(
        [str(node.root / "usr/bin/nvidia-cuda-mps-control")],
        stdin=subprocess.PIPE,
        text=True,
        env=node.environment(),
    )
    node.clients.append(quitting)
    assert quitting.stdin is not None
    quitting.stdin.write("quit\n")
    quitting.stdin.flush()
    wait_until(lambda: "Cmd:quit" in (node.logs / "control.log").read_text(), "the daemon quits")
    code, _, err = node.run_client()
    assert code == 1
    assert "CUDA_ERROR_MPS_SERVER_NOT_READY" in err
    assert is_running(pid)
    client.terminate()
    assert client.wait(20) == 0
    assert quitting.wait(20) == 0
    wait_until(lambda: not is_running(pid), "the daemon ends")


def test_quit_with_a_timeout_forces_the_end(node: MpsNode) -> None:
    pid = node.start(devices="0")
    client, _ = node.counting_client()
    assert node.say("quit -t 0") == []
    assert client.wait(20) == 1
    wait_until(lambda: not is_running(pid), "the daemon ends")
    assert node.used_by(node.uuids[0]) == []


def test_a_fatal_fault_fails_all_clients_and_then_the_server_recovers(node: MpsNode) -> None:
    node.start(devices="0")
    client, _ = node.counting_client()
    code, _, err = node.run_client("--fault")
    assert code == 1
    assert "CUDA_ERROR_LAUNCH_FAILED" in err
    assert client.wait(20) == 1
    (server,) = node.say("get_server_list")
    wait_until(lambda: node.say(f"get_server_status {server}") == ["ACTIVE"], "the server recovers")
    assert node.run_client()[0] == 0


def test_a_lost_gpu_is_no_device(node: MpsNode) -> None:
    node.start(devices="0")
    assert node.run_client()[0] == 0
    faults.lose_gpu(node.state_file, 0)
    code, _, err = node.run_client()
    assert code == 1
    assert "CUDA_ERROR_DEVICE_UNAVAILABLE" in err


def test_exclusive_mode_lets_one_process_in(node: MpsNode) -> None:
    set_mode(node, 0, EXCLUSIVE_PROCESS)
    alone = {"CUDA_VISIBLE_DEVICES": "0"}
    client, _ = node.counting_client(**alone)
    assert node.used_by(node.uuids[0]) == [(client.pid, None)]
    code, _, err = node.run_client(**alone)
    assert code == 1
    assert err.startswith(f"CUDA_ERROR_DEVICE_UNAVAILABLE: {node.uuids[0]}")
    node.start(devices="0")
    code, _, err = node.run_client()  # the server cannot have it either
    assert code == 1
    assert "CUDA_ERROR_MPS_CONNECTION_FAILED" in err
    client.kill()
    client.wait()
    wait_until(lambda: node.used_by(node.uuids[0]) == [], "the kernel frees the device")
    assert node.run_client()[0] == 0
    assert node.run_client()[0] == 0
    code, _, err = node.run_client(**alone, CUDA_MPS_PIPE_DIRECTORY=str(node.folder / "none"))
    assert code == 1
    assert "CUDA_ERROR_DEVICE_UNAVAILABLE" in err


def test_without_mps_it_says_so(node: MpsNode) -> None:
    code, out, _ = node.run_client("--allocate", "1G", CUDA_VISIBLE_DEVICES="7")
    assert code == 0
    got = facts(out)
    assert got.pop("pid").isdigit()
    assert got == {
        "mps": "no",
        "device.0": node.uuids[7],
        "memory.0": "81559M",
        "memory_limit.0": "none",
        "allocated": "1024M",
    }
    wait_until(lambda: node.used_by(node.uuids[7]) == [], "it is gone")
    assert node.run_client("--allocate", "81G", CUDA_VISIBLE_DEVICES="7")[0] == 1
    assert node.run_client("--allocate", "lots")[0] == 1
    code, _, err = node.run_client("--fault")
    assert (code, err) == (1, "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure\n")
    assert node.run_client("--what")[0] == 2


@pytest.fixture
def hardware(node: MpsNode) -> Iterator[NvmlHardware]:
    """NVML of this process is the node's."""
    install(node.state_file)
    started = NvmlHardware()
    started.start()
    yield started
    started.stop()
    uninstall()


def running_processes(uuid: str) -> list[int]:
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return sorted(each.pid for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle))


def test_on_a_mig_device(node: MpsNode, hardware: NvmlHardware) -> None:
    control, uuid = MigControl(), node.uuids[2]
    control.set_mode(uuid, True)
    instance = control.create_gpu_instance(uuid, 9, MigPlacement(4, 4))
    made = control.create_compute_instance(uuid, instance, 3)
    ((_, compute),) = node.state.gpus[2].mig_devices()
    node.start(devices=compute.uuid)
    node.say(f"set_default_device_pinned_mem_limit {compute.uuid} 4G")
    client, _ = node.counting_client()
    got = facts(node.run_client()[1])
    assert [got["device.0"], got["memory.0"], got["memory_limit.0"]] == [compute.uuid, "40448M", "4G"]
    assert (client.pid, int(got["server"])) in node.used_by(compute.uuid)
    with pytest.raises(InstanceInUse):
        control.destroy_compute_instance(uuid, instance, made.id)
    assert node.say("quit -t 0") == []
    wait_until(lambda: node.used_by(compute.uuid) == [], "nobody uses it")


def test_a_daemon_and_server_killed_together_leave_the_device_free(node: MpsNode, hardware: NvmlHardware) -> None:
    pid = node.start(devices=node.uuids[1])
    client, _ = node.counting_client()
    (server,) = node.say("get_server_list")
    assert running_processes(node.uuids[1]) == sorted([client.pid, int(server)])
    os.kill(int(server), signal.SIGSTOP)  # so that it does not live to see its daemon's end
    os.kill(pid, signal.SIGKILL)
    os.kill(int(server), signal.SIGKILL)
    wait_until(lambda: running_processes(node.uuids[1]) == [], "the device is free")
    assert client.wait(20) == 1
    MigControl().set_mode(node.uuids[1], True)
    assert node.used_by(node.uuids[1]) == []


def test_a_client_without_mps_that_is_killed_leaves_the_device_free(node: MpsNode, hardware: NvmlHardware) -> None:
    """As at the end of a container, where everything in it is killed with its first process."""
    set_mode(node, 1, EXCLUSIVE_PROCESS)
    client, _ = node.counting_client(CUDA_VISIBLE_DEVICES=node.uuids[1])
    assert running_processes(node.uuids[1]) == [client.pid]
    first = Process.of(client.pid)
    assert first is not None
    (holder,) = [each.pid for each in first.children() if "mps.direct" in Path(f"/proc/{each.pid}/cmdline").read_text()]
    os.kill(holder, signal.SIGKILL)
    os.kill(client.pid, signal.SIGKILL)
    wait_until(lambda: running_processes(node.uuids[1]) == [], "the device is free")
    assert node.used_by(node.uuids[1]) == [(client.pid, None)], "nobody has taken it out of the file"
    code, out, err = node.run_client(CUDA_VISIBLE_DEVICES=node.uuids[1])
    assert (code, err, facts(out)["device.0"]) == (0, "", node.uuids[1])
    wait_until(lambda: node.used_by(node.uuids[1]) == [], "the next one has tidied up")
    wait_until(lambda: node.holders() == [], "and the files beside it")


def test_many_at_once(node: MpsNode) -> None:
    node.start(devices="0,1")
    clients = [node.start_client("--allocate", "1G") for _ in range(16)]
    asking = [
        subprocess.Popen(
            [str(node.root / "usr/bin/nvidia-cuda-mps-control")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=node.environment(),
        )
        for _ in range(8)
    ]
    node.clients.extend(asking)
    for each in asking:
        assert each.communicate("get_default_active_thread_percentage\n" * 5, timeout=60) == ("100.0\n" * 5, "")
    got = [facts(each.communicate(timeout=60)[0]) for each in clients]
    assert len({each["pid"] for each in got}) == 16
    assert {each["server"] for each in got} == set(node.say("get_server_list"))
    assert list((node.pipe / "clients").iterdir()) == []
    (server,) = node.say("get_server_list")
    wait_until(lambda: node.say(f"get_client_list {server}") == [], "all are gone")
    assert node.used_by(node.uuids[1]) == [(int(server), int(server))]
