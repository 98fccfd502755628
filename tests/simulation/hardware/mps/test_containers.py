"""The shell programs where neither Python nor the state is: in another mount and PID namespace, as another user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.simulation.hardware import faults
from dra_driver.simulation.hardware.mps import scripts
from tests.simulation.hardware.mps.conftest import MpsNode, facts, is_running, shells, wait_until

pytestmark = pytest.mark.process

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and other users need root")


def as_in_a_container(node: MpsNode) -> None:
    """Its programs become the ones of a container: they find no Python."""
    cuda = node.state.machine.hardware.cuda_driver_version
    none = Path("/none/python3")
    (node.root / scripts.CONTROL_PATH).write_text(scripts.control_script(node.state_file, cuda, python=none))
    (node.root / scripts.CLIENT_PATH).write_text(scripts.client_script(node.state_file, python=none))


def use_shell(node: MpsNode, shell: list[str]) -> None:
    """With the tools that come with it."""
    node.shell = shell
    if Path(shell[0]).name == "busybox":
        tools = node.folder / "tools"
        tools.mkdir()
        for name in ("sh", "mkfifo", "timeout", "sleep"):
            (tools / name).symlink_to(shell[0])
        node.path = str(tools)


@pytest.mark.parametrize("shell", shells(), ids=lambda shell: Path(shell[0]).name)
def test_each_shell_speaks_with_the_daemon(node: MpsNode, shell: list[str]) -> None:
    node.start(devices="0")
    as_in_a_container(node)
    use_shell(node, shell)
    assert node.say("set_default_active_thread_percentage 40", "get_server_list") == ["40.0"]
    code, out, err = node.run_client("--allocate", "1G")
    assert (code, err) == (0, "")
    got = facts(out)
    assert [got["mps"], got["active_thread_percentage"], got["allocated"]] == ["yes", "40.0", "1024M"]
    assert node.say("get_server_list") == [got["server"]]
    assert node.run_client("--allocate", "800G")[0] == 1
    client, _ = node.counting_client()
    assert node.say(f"get_client_list {got['server']}") == [str(client.pid)]
    other, _ = node.counting_client()
    other.terminate()
    assert other.wait(20) == 0
    node.say(f"shutdown_server {got['server']} -f")
    assert client.communicate(timeout=20)[1] == "CUDA_ERROR_MPS_RPC_FAILURE: the MPS server is gone\n"
    assert client.returncode == 1
    assert list((node.pipe / "clients").iterdir()) == []


@pytest.mark.parametrize("shell", shells(), ids=lambda shell: Path(shell[0]).name)
def test_without_a_daemon_each_shell_says_so(node: MpsNode, shell: list[str]) -> None:
    as_in_a_container(node)
    use_shell(node, shell)
    assert node.control(text="ps\n") == (1, "", "Cannot find MPS control daemon process\n")
    assert node.control("-d")[0] == 1
    code, out, err = node.run_client()
    assert (code, out) == (1, "mps=no\n")
    assert "no MPS daemon" in err


@pytest.mark.root
@as_root
def test_a_client_in_a_pid_namespace_is_known_by_its_id_on_the_host(node: MpsNode) -> None:
    node.start(devices="0")
    as_in_a_container(node)
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare")
    node.shell = [unshare, "--pid", "--fork", "--kill-child"]
    client, file = node.counting_client()
    (server,) = node.say("get_server_list")
    (known,) = node.say(f"get_client_list {server}")
    child = (Path("/proc") / str(client.pid) / "task" / str(client.pid) / "children").read_text().strip()
    assert known == child
    (_, row) = node.say("ps")
    assert row.split()[4] == os.readlink(f"/proc/{child}/ns/pid").partition("[")[2].rstrip("]")
    before = int(file.read_text() or 0)
    wait_until(lambda: int(file.read_text() or 0) > before, "it counts on")
    client.kill()
    wait_until(lambda: node.say(f"get_client_list {server}") == [], "the client is gone")


@pytest.fixture
def open_node() -> Iterator[MpsNode]:
    """A node that other users reach: pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        node = MpsNode(Path(folder))
        try:
            yield node
        finally:
            node.close()


def as_user(node: MpsNode, user: int) -> None:
    node.shell = [shutil.which("setpriv") or pytest.skip("no setpriv"), f"--reuid={user}", "--clear-groups"]


@pytest.mark.root
@as_root
def test_another_users_client_waits_for_a_server_of_its_own(open_node: MpsNode) -> None:
    node = open_node
    node.start(devices="0")
    as_in_a_container(node)
    client, _ = node.counting_client()
    (server,) = node.say("get_server_list")
    as_user(node, 12345)
    other = node.start_client()
    wait_until(lambda: "NEW CLIENT from user 12345" in (node.logs / "control.log").read_text(), "it has asked")
    assert node.say("get_server_list") == [server]
    assert other.poll() is None
    client.terminate()
    assert facts(other.communicate(timeout=20)[0])["server"] != server
    wait_until(lambda: server not in node.say("get_server_list"), "the first server ends")


@pytest.mark.root
@as_root
def test_in_multi_user_mode_all_share_one_server(open_node: MpsNode) -> None:
    node = open_node
    node.start("-M", devices="0")
    as_in_a_container(node)
    client, _ = node.counting_client()
    (server,) = node.say("get_server_list")
    as_user(node, 12345)
    assert facts(node.run_client()[1])["server"] == server
    assert client.poll() is None


@pytest.mark.root
@as_root
def test_other_users_may_ask_and_not_change(open_node: MpsNode) -> None:
    node = open_node
    node.start()
    as_user(node, 12345)
    refused = "Permission denied: for root and the owner of the daemon"
    assert node.say("set_default_active_thread_percentage 90", "quit", "get_default_active_thread_percentage") == [
        refused,
        refused,
        "100.0",
    ]


def test_with_python_and_no_tools_the_language_is_spoken_too(node: MpsNode) -> None:
    """As in the driver's image."""
    node.shell = ["/bin/sh"]
    node.path = "/none"
    nobody = (1, "", "Cannot find MPS control daemon process\n")
    assert node.control(text="ps\n") == nobody
    pid = node.start(devices="0")
    assert node.say("set_default_active_thread_percentage 40", "foo", "get_server_list") == [
        "40.0",
        "Unknown command foo: help lists the commands",
    ]
    assert node.control(text="get_default_active_thread_percentage") == (0, "40.0\n", "")
    faults.inject_mps_fault(node.state_file, crash=("ps",))
    assert node.control(text="ps\n") == nobody
    wait_until(lambda: not is_running(pid), "the daemon ends")
    assert (node.pipe / "control").exists()
    assert node.control(text="get_server_list\n") == nobody
    faults.clear_faults(node.state_file)
    node.start()
    assert node.say("quit") == []
    assert node.control(text="quit\n") == nobody
