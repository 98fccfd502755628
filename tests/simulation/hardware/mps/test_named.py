"""Protocol 3 through the programs in the node's tree: named servers, namespaces, and the traps of both."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.simulation.hardware.faults import inject_mps_fault
from dra_driver.simulation.hardware.mps import scripts
from tests.simulation.hardware.mps.conftest import Answer, MpsNode, facts, is_running, shells, wait_until
from tests.simulation.hardware.mps.test_clients import set_mode
from tests.simulation.hardware.mps.test_containers import as_root, as_user, use_shell

pytestmark = pytest.mark.process

GONE = "Cannot find MPS control daemon process\n"
EXCLUSIVE = 3


class NamedNode(MpsNode):
    """A node whose driver knows protocol 3. ``do``: a command that must succeed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, driver="615.71.09")

    def do(self, command: str) -> list[str]:
        code, out, err = self.control(*command.split())
        assert (code, err) == (0, ""), command
        return out.splitlines()

    def refusal(self, command: str) -> str:
        code, out, err = self.control(*command.split())
        assert (code, out) == (1, ""), command
        return err.strip()

    def serve(self, *options: str, devices: str = "0,1", name: str = "gpus") -> None:
        """A daemon with one server, which is ready."""
        assert self.control("-d", "-p", "3", *options) == (0, "", "")
        self.do(f"server create {name} --allowed-devices={devices}")
        wait_until(lambda: self.do(f"server get {name} status") == ["Ready"], "the server is ready")

    def share(self, name: str, limits: str) -> Path:
        self.do(f"namespace create {name} --server=gpus")
        self.do(f"namespace set {name} --server=gpus {limits}")
        return Path(self.do(f"namespace get {name} gpus pipe-directory")[0])

    def join(self, folder: Path, *options: str, **environment: str) -> Answer:
        return self.run_client(*options, CUDA_MPS_PIPE_DIRECTORY=str(folder), **environment)

    def counting_in(self, folder: Path) -> subprocess.Popen[str]:
        return self.counting_client(CUDA_MPS_PIPE_DIRECTORY=str(folder))[0]


@pytest.fixture
def named() -> Iterator[NamedNode]:
    """Other users reach it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        node = NamedNode(Path(folder))
        try:
            yield node
        finally:
            node.close()


def test_an_older_driver_refuses_the_option_and_overlooks_the_variable(node: MpsNode) -> None:
    for options in (("-d", "-p", "3"), ("-p", "3", "-h"), ("server", "list"), ("-d", "-m"), ("-q",)):
        code, out, err = node.control(*options)
        assert (code, out) == (1, "")
        assert err.startswith("usage: ")
    assert node.control("-d", CUDA_MPS_PROTOCOL_VERSION="3") == (0, "", "")
    assert node.say("get_default_active_thread_percentage") == ["100.0"]


def test_help_says_whether_the_protocol_is_known(named: NamedNode) -> None:
    assert "server namespace client" in named.control("-p", "3", "-h")[1]
    assert "namespace" not in named.control("-h")[1]
    assert "server namespace client" in named.control("--help", CUDA_MPS_PROTOCOL_VERSION="3")[1]


def test_protocol_2_is_the_default_and_the_variable_goes_before_the_option(named: NamedNode) -> None:
    named.start()
    assert named.say("get_server_list", "get_default_active_thread_percentage") == ["100.0"]
    assert named.refusal("server list").startswith("Unknown command server")
    got = facts(named.run_client(CUDA_MPS_CLIENT_PRIORITY="1")[1])
    assert (got["mps"], got.get("namespace")) == ("yes", None)
    assert named.do("-q") == []
    wait_until(lambda: not (named.pipe / "control").exists(), "the daemon ends")
    assert named.control("-d", "-p", "2", CUDA_MPS_PROTOCOL_VERSION="3") == (0, "", "")
    assert named.do("server list --format=csv,noheader") == []
    # A daemon that runs overrules both.
    assert named.control("-p", "2", "server", "list", "--format=csv,noheader") == (0, "", "")


def test_servers_and_namespaces_are_made_limited_listed_and_deleted(named: NamedNode) -> None:
    named.serve(devices=f"{named.uuids[0]},{named.uuids[3]}")
    (row,) = named.do("server list --format=csv,noheader")
    pid = named.do("server get gpus pid")[0]
    devices = f'"{named.uuids[0]},{named.uuids[3]}"'
    assert row == f"gpus,{os.getuid()},{pid},Ready,{named.pipe}/gpus,{devices},-"
    assert named.used_by(named.uuids[3]) == [(int(pid), int(pid))]
    assert named.used_by(named.uuids[1]) == []
    folder = named.share("high_priority", "--pinned-memory-limit=4096M --active-thread-percentage=25")
    assert folder == named.pipe / "gpus" / "high_priority"
    named.do("namespace set high_priority --server=gpus client-priority=1")
    assert named.do("namespace get high_priority gpus pinned-memory-limit") == ["4G"]
    assert named.do("namespace list --server=gpus --format=csv") == [
        "name,server,server-status,pinned-memory-limit,active-thread-percentage,client-priority,pipe-directory",
        f"default,gpus,Ready,-,-,0,{named.pipe}/gpus/default",
        f"high_priority,gpus,Ready,4G,25.00,1,{folder}",
    ]
    heading, row = named.do("namespace list high_priority")
    assert heading.startswith("NAME           SERVER  SERVER STATUS  PINNED MEMORY LIMIT  ACTIVE THREAD PERCENTAGE")
    named.do("server set gpus --pinned-memory-limit=1024K")
    assert named.do("namespace get default gpus pinned-memory-limit") == ["1M"]
    named.do("namespace delete high_priority --server=gpus")
    assert not folder.exists()
    named.do("server create other --allowed-devices=5")
    assert len(named.do("server list --format=csv,noheader")) == 2
    named.do("server delete other")
    assert not (named.pipe / "other").exists()
    assert named.do("-q") == []
    wait_until(lambda: [each.name for each in named.pipe.iterdir()] == ["control_lock"], "the daemon ends")
    assert named.used_by(named.uuids[0]) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("server create", "A name or --uid=<n> is needed"),
        ("server create gpus", "named gpus already"),
        ("server create Big", "Invalid server name 'Big'"),
        ("server create control", "has a file of the name control"),
        ("server delete nobody", "No MPS server is named nobody"),
        ("server list nobody", "No MPS server is named nobody"),
        ("server get gpus colour", "Unknown field colour"),
        ("server set gpus", "At least one of"),
        ("server create x --pinned-memory-limit=1G", "Usage: server create"),
        ("namespace create a", "--server=<server> is missing"),
        ("namespace create a --server=b", "No MPS server is named b"),
        ("namespace create default --server=gpus", "has a namespace default already"),
        ("namespace create log --server=gpus", "has a file of the name log"),
        (f"namespace create {'a' * 65} --server=gpus", "at most 64"),
        ("namespace create a-b --server=gpus", "Invalid namespace name 'a-b'"),
        ("namespace delete default --server=gpus", "is built in"),
        ("namespace delete a --server=gpus", "has no namespace a"),
        ("namespace set default --server=gpus --pinned-memory-limit=4", "Invalid memory limit 4"),
        ("namespace set default --server=gpus --active-thread-percentage=0", "Invalid active thread percentage 0"),
        ("namespace set default --server=gpus --client-priority=2", "Invalid client priority 2"),
        ("namespace get default gpus", "Usage: namespace get"),
        ("namespace list --format=json", "Invalid format json"),
        ("namespace list --colour", "Unknown option --colour"),
        ("namespace list nobody", "No namespace is named nobody"),
        ("client terminate 1", "No client has the PID 1"),
        ("memacct describe", "Unknown command memacct describe"),
        ("server list a b c d", "at most 3 positional"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(named: NamedNode, command: str, words: str) -> None:
    named.serve()
    before = named.do("server list"), named.do("namespace list")
    assert words in named.refusal(command)
    assert (named.do("server list"), named.do("namespace list")) == before


def test_a_client_gets_the_limits_of_its_namespace_on_each_gpu(named: NamedNode) -> None:
    named.serve()
    folder = named.share("a", "--pinned-memory-limit=10G --active-thread-percentage=25 --client-priority=1")
    code, out, err = named.join(folder, "--allocate", "2G")
    assert (code, err) == (0, "")
    got = facts(out)
    assert [got[each] for each in ("namespace", "active_thread_percentage", "client_priority")] == ["a", "25.0", "1"]
    for gpu in ("0", "1"):  # the limit is what is free, and the total the whole GPU
        of_gpu = [got[f"{each}.{gpu}"] for each in ("memory", "memory_limit", "memory_free")]
        assert of_gpu == ["81559M", "10G", f"{8 * 1024}M"]
    assert named.join(folder, "--allocate", "10G")[0] == 0
    code, _, err = named.join(folder, "--allocate", "10241M")
    assert code == 1
    assert err.startswith(f"CUDA_ERROR_OUT_OF_MEMORY: out of memory on {named.uuids[0]}")


def test_a_client_can_lower_memory_and_choose_its_priority_but_not_its_percentage(named: NamedNode) -> None:
    named.serve()
    folder = named.share("a", "--pinned-memory-limit=10G --active-thread-percentage=25 --client-priority=1")
    own = {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "10",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=2G,1=40G",
        "CUDA_MPS_CLIENT_PRIORITY": "0",
    }
    got = facts(named.join(folder, **own)[1])
    assert [got[f"memory_limit.{gpu}"] for gpu in (0, 1)] == ["2G", "10G"]
    assert (got["active_thread_percentage"], got["client_priority"]) == ("25.0", "0")
    free = named.share("b", "--client-priority=0")
    assert facts(named.join(free, **own)[1])["active_thread_percentage"] == "10.0"


def test_each_process_of_a_namespace_has_its_limit_for_itself(named: NamedNode) -> None:
    named.serve()
    folder = named.share("a", "--pinned-memory-limit=10G")
    file = named.folder / "first"
    first = named.start_client("--allocate", "9G", "--count", str(file), CUDA_MPS_PIPE_DIRECTORY=str(folder))
    wait_until(file.exists, "the first counts")
    assert named.join(folder, "--allocate", "9G")[0] == 0
    assert first.poll() is None


def test_a_named_namespace_inherits_nothing_from_its_server(named: NamedNode) -> None:
    named.serve()
    named.do("server set gpus --pinned-memory-limit=1G --active-thread-percentage=5")
    folder = named.share("a", "--client-priority=0")
    got = facts(named.join(folder)[1])
    assert (got["memory_limit.0"], got["active_thread_percentage"]) == ("none", "100.0")
    for default in (named.pipe / "gpus", named.pipe / "gpus" / "default"):
        got = facts(named.join(default)[1])
        assert (got["namespace"], got["memory_limit.0"], got["active_thread_percentage"]) == ("default", "1G", "5.0")


def test_a_variable_that_names_an_invisible_gpu_drops_every_limit_of_memory(named: NamedNode) -> None:
    named.serve(devices="0")
    folder = named.share("a", "--pinned-memory-limit=10G --active-thread-percentage=25")
    code, out, _ = named.join(folder, "--allocate", "70G", CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="0=2G,1=4G")
    assert code == 0
    assert (facts(out)["memory_limit.0"], facts(out)["active_thread_percentage"]) == ("none", "25.0")


def test_a_wrong_pipe_directory_silently_gives_the_whole_gpu_unless_mps_has_it_alone(named: NamedNode) -> None:
    named.serve(devices="0")
    named.share("a", "--pinned-memory-limit=10G")
    got = facts(named.join(named.pipe / "gpus" / "b")[1])
    assert (got["mps"], got["memory_limit.0"]) == ("no", "none")
    set_mode(named, 0, EXCLUSIVE)
    code, _, err = named.join(named.pipe / "gpus" / "b", CUDA_VISIBLE_DEVICES="0")
    assert code == 1
    assert "CUDA_ERROR_DEVICE_UNAVAILABLE" in err


def test_a_server_with_a_gpu_that_is_not_there_is_accepted_and_gone_at_once(named: NamedNode) -> None:
    assert named.control("-d", "-p", "3") == (0, "", "")
    named.do("server create wrong --allowed-devices=GPU-00000000-0000-0000-0000-000000000000")
    wait_until(lambda: named.do("server list --format=csv,noheader") == [], "the server is gone")
    assert "CUDA_ERROR_NO_DEVICE" in (named.logs / "wrong" / "server.log").read_text()
    assert facts(named.join(named.pipe / "wrong" / "default")[1])["mps"] == "no"


def test_a_server_or_namespace_with_clients_goes_only_by_force(named: NamedNode) -> None:
    named.serve()
    folder = named.share("a", "--pinned-memory-limit=10G")
    client = named.counting_in(folder)
    (row,) = named.do("client list --server=gpus --format=csv,noheader")[:1]
    assert row.split(",")[:4] == [str(client.pid), "gpus", "0", "a"]
    assert "has 1 active clients" in named.refusal("namespace delete a --server=gpus")
    assert "has 1 active clients" in named.refusal("server delete gpus")
    named.do("namespace delete a --server=gpus --force")
    assert client.poll() is None
    named.do("server delete gpus --force")
    assert client.communicate(timeout=20)[1] == "CUDA_ERROR_MPS_RPC_FAILURE: the MPS server is gone\n"


def test_a_client_is_terminated_and_the_others_go_on(named: NamedNode) -> None:
    named.serve(devices="0")
    folder = named.share("a", "--pinned-memory-limit=10G")
    first, second = named.counting_in(folder), named.counting_in(folder)
    named.do(f"client terminate {first.pid}")
    assert "CUDA_ERROR_MPS_CLIENT_TERMINATED" in first.communicate(timeout=20)[1]
    assert [each.split(",")[0] for each in named.do("client list --all --format=csv,noheader")] == [str(second.pid)]


def test_the_daemons_own_socket_makes_a_server_for_the_user(named: NamedNode) -> None:
    assert named.control("-d", "-p", "3") == (0, "", "")
    got = facts(named.run_client()[1])
    assert (got["mps"], got["namespace"]) == ("yes", "default")
    assert named.do(f"server get uid_{os.getuid()} pid") == [got["server"]]


def test_nothing_of_a_daemon_that_was_killed_is_there_in_the_next(named: NamedNode) -> None:
    named.serve()
    folder = named.share("a", "--pinned-memory-limit=10G")
    pid = named.daemon()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the daemon ends")
    assert named.control("server", "list") == (1, "", GONE)
    assert facts(named.join(folder)[1])["mps"] == "no"
    named.serve()
    assert [each.split(",")[0] for each in named.do("namespace list --format=csv,noheader")] == ["default"]
    assert not folder.exists()


def test_tickets_that_nobody_used_are_replaced(named: NamedNode) -> None:
    named.serve(devices="0")
    folder = named.share("a", "--pinned-memory-limit=10G")
    taken: set[bytes] = set()
    with (folder / ".tickets").open("rb", buffering=0) as tickets:
        while len(taken) < 20:
            taken.add(tickets.read(8))
    assert named.join(folder)[0] == 0


def test_a_namespaces_folder_takes_no_commands(named: NamedNode) -> None:
    named.serve()
    folder = named.share("a", "--pinned-memory-limit=10G")
    options = ("namespace", "set", "a", "--server=gpus", "--pinned-memory-limit=70G")
    code, _, err = named.control(*options, CUDA_MPS_PIPE_DIRECTORY=str(folder))
    assert code == 1
    assert "it is for clients" in err
    with (folder / "control").open("wb", buffering=0) as control:
        control.write(b"command 0000000 namespace set a --server=gpus --pinned-memory-limit=70G\n")
    assert named.do("namespace get a gpus pinned-memory-limit") == ["10G"]


def test_faults_are_played_by_the_names_of_commands(named: NamedNode) -> None:
    named.serve()
    pid = named.daemon()
    inject_mps_fault(named.state_file, crash=("namespace create",))
    assert named.control("namespace", "create", "a", "--server=gpus") == (1, "", GONE)
    wait_until(lambda: not is_running(pid), "the daemon ends")


@pytest.mark.parametrize("shell", shells(), ids=lambda shell: Path(shell[0]).name)
def test_each_shell_speaks_the_protocol_in_a_container(named: NamedNode, shell: list[str]) -> None:
    named.serve(devices="0")
    none = Path("/none/python3")
    control = scripts.control_script(named.state_file, 13040, named=True, python=none)
    (named.root / scripts.CONTROL_PATH).write_text(control)
    (named.root / scripts.CLIENT_PATH).write_text(scripts.client_script(named.state_file, named=True, python=none))
    use_shell(named, shell)
    if Path(shell[0]).name == "busybox":
        (named.folder / "tools" / "dd").symlink_to(shell[0])
    folder = named.share("a", "--pinned-memory-limit=10G")
    assert facts(named.join(folder, "--allocate", "10G")[1])["namespace"] == "a"
    assert named.join(folder, "--allocate", "11G")[0] == 1
    # Where a container has the daemon's own directory, its root may change what it likes.
    named.do("namespace set a --server=gpus --pinned-memory-limit=70G")
    assert named.join(folder, "--allocate", "11G")[0] == 0
    assert named.control("-d", "-p", "3")[0] == 1


def test_with_python_and_no_tools_commands_are_said_too(named: NamedNode) -> None:
    named.serve()
    named.shell, named.path = ["/bin/sh"], "/none"
    assert named.do("server get gpus status") == ["Ready"]
    assert named.refusal("server get nobody status") == "No MPS server is named nobody"


@pytest.mark.root
@as_root
def test_a_read_only_mount_is_enough_for_a_client(named: NamedNode) -> None:
    named.serve(devices="0")
    folder, inside = named.share("a", "--pinned-memory-limit=10G"), named.folder / "inside"
    inside.mkdir()
    client = named.root / scripts.CLIENT_PATH
    script = (
        f"mount --bind {folder} {inside} && mount -o remount,bind,ro {inside} && ! touch {inside}/x 2>/dev/null && "
        f"exec {client} --allocate 2G"
    )
    done = subprocess.run(
        [shutil.which("unshare") or pytest.skip("no unshare"), "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=named.environment(CUDA_MPS_PIPE_DIRECTORY=str(inside)),
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert facts(done.stdout)["memory_limit.0"] == "10G"


@pytest.mark.root
@as_root
def test_without_multi_user_mode_only_the_servers_user_is_let_in(named: NamedNode) -> None:
    named.serve(devices="0")
    folder = named.share("a", "--pinned-memory-limit=10G")
    assert named.join(folder)[0] == 0
    as_user(named, 12345)
    code, _, err = named.join(folder)
    assert code == 1
    assert err.startswith("CUDA_ERROR_NOT_PERMITTED: MPS server gpus serves user 0, not 12345")
    assert named.do("server get gpus status") == ["Ready"]
    assert named.refusal("namespace set a --server=gpus --pinned-memory-limit=70G").startswith("Permission denied")


@pytest.mark.root
@as_root
def test_in_multi_user_mode_everybody_is_let_in_and_servers_are_roots(named: NamedNode) -> None:
    named.serve("-m", devices="0")
    folder = named.share("a", "--pinned-memory-limit=10G")
    assert named.refusal("server create b --uid=5") == "In multiuser mode only --uid=0 is allowed"
    as_user(named, 12345)
    assert facts(named.join(folder)[1])["memory_limit.0"] == "10G"
    got = facts(named.run_client(CUDA_VISIBLE_DEVICES=named.uuids[1])[1])
    assert named.do("server get uid_0 pid") == [got["server"]]
