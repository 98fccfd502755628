"""usr/bin/nvidia-smi of a simulated node, as it runs in containers: by any shell, without Python, and agreeing with it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from dra_driver.cdi.mig_capabilities import read_mig_capabilities
from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import MigControl
from dra_driver.simulation.hardware import (
    StateFile,
    capabilities,
    create_state,
    faults,
    load_machine,
    recorded_machines,
)
from dra_driver.simulation.hardware.description import MachineDescription
from dra_driver.simulation.hardware.smi.fields import GPU_FIELDS
from dra_driver.simulation.hardware.smi.script import SMI_PATH, smi_script
from dra_driver.simulation.hardware.state import MemoryLimitState
from tests.simulated_node import NodeMaker
from tests.simulation.hardware.smi.kit import SHELLS, Answer, build, call_script, call_smi


@pytest.mark.process
def test_the_installed_nvidia_smi_runs(tmp_path: Path) -> None:
    root, _ = build(tmp_path, "t4")
    done = subprocess.run([root / "usr/bin/nvidia-smi", "-L"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        f"GPU {index}: Tesla T4" for index in range(4)
    ]


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_nvidia_smi_without_python_lists_the_containers_gpus(tmp_path: Path, shell: list[str]) -> None:
    state_file = tmp_path / "state.json"
    state = create_state("h100-sxm5-80gb", state_file, seed="it's")
    dev = tmp_path / "dev of a container"
    dev.mkdir()
    script = tmp_path / "nvidia-smi"
    script.write_text(smi_script(state, state_file, python=Path("/none/python3"), dev=dev))

    def call(*options: str) -> Answer:
        return call_script(shell, script, *options)

    assert call("-L") == (6, "No devices were found\n", "")
    for name in ("nvidiactl", "nvidia2", "nvidia7", "nvidia-uvm"):
        (dev / name).touch()
    listing = (
        f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {state.gpus[2].uuid})\n"
        f"GPU 1: NVIDIA H100 80GB HBM3 (UUID: {state.gpus[7].uuid})\n"
    )
    assert call("-L") == call("--list-gpus") == (0, listing, "")
    code, out, _ = call()
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["|", "0", "NVIDIA", "H100", "80GB", "HBM3", "On", "|", "00000000:3A:00.0", "Off", "|", "0", "|"] in rows
    assert ["|", "1", "NVIDIA", "H100", "80GB", "HBM3", "On", "|", "00000000:DB:00.0", "Off", "|", "0", "|"] in rows
    assert without_time((0, out, ""))[1].startswith(("N/A   ", "<time>   ")), (
        "only some shells have a date of their own"
    )
    assert call("--query-gpu=index,count,uuid", "--format=csv,noheader") == (
        0,
        f"0, 2, {state.gpus[2].uuid}\n1, 2, {state.gpus[7].uuid}\n",
        "",
    )
    assert "Attached GPUs                                      : 2\nGPU 00000000:3A:00.0\n" in call("-q")[1]
    assert call("--version") == (0, call_smi(str(state_file), "--version")[1], "")
    code, out, err = call("-i", "0", "-mig", "1")
    assert (code, out) == (2, "")
    assert err.startswith("nvidia-smi -i 0 -mig 1: not simulated in a container")
    assert call("")[0] == 2


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_nvidia_smi_in_a_container_lists_its_mig_devices_only(
    make_node: NodeMaker, tmp_path: Path, shell: list[str]
) -> None:
    """Also those that were made after the tree, and in a script that the container has had all the time."""
    node = make_node("rtx-pro-6000")
    dev = tmp_path / "dev"
    (dev / "nvidia-caps").mkdir(parents=True)
    script = node.root / SMI_PATH
    script.write_text(smi_script(node.file.read(), node.state_file, python=Path("/none"), dev=dev))
    control, uuid = MigControl(), node.file.read().gpus[1].uuid
    control.set_mode(uuid, True)
    mine = control.create_gpu_instance(uuid, 64, MigPlacement(6, 6))  # the longest name: 1c.2g.48gb+me.all
    parts = [control.create_compute_instance(uuid, mine, 1) for _ in range(2)]
    other = control.create_gpu_instance(uuid, 67, MigPlacement(0, 3))
    control.create_compute_instance(uuid, other, 1)
    identity = script.stat().st_ino

    def call() -> list[str]:
        return call_script(shell, script, "-L")[1].splitlines()

    (dev / "nvidia1").touch()
    gpu = f"GPU 0: NVIDIA RTX PRO 6000 Blackwell Server Edition (UUID: {uuid})"
    assert call() == [gpu]
    found = read_mig_capabilities(node.root, 1, mine, parts[1].id)
    (dev / f"nvidia-caps/nvidia-cap{found.compute_instance_minor}").touch()
    assert call() == [gpu], "the GPU instance's node is missing"
    (dev / f"nvidia-caps/nvidia-cap{found.gpu_instance_minor}").touch()
    assert call() == [gpu, f"  MIG 1c.2g.48gb+me.all Device  0: (UUID: {parts[1].uuid})"]
    for each in parts:
        control.destroy_compute_instance(uuid, mine, each.id)
    whole = control.create_compute_instance(uuid, mine, 2)
    (dev / f"nvidia-caps/nvidia-cap{found.gpu_instance_minor + 1}").touch()
    assert call() == [gpu, f"  MIG 2g.48gb+me.all Device  0: (UUID: {whole.uuid})"]
    assert script.stat().st_ino == identity


@pytest.mark.process
def test_nvidia_smi_does_without_python_where_the_state_or_the_package_is_missing(tmp_path: Path) -> None:
    """An image may have a Python at the very same path."""
    state_file = tmp_path / "state.json"
    state = create_state("t4", state_file, seed="n")
    script = tmp_path / "nvidia-smi"
    script.write_text(smi_script(state, state_file, dev=tmp_path))
    (tmp_path / "nvidia0").touch()
    assert len(subprocess.run(["sh", script, "-L"], capture_output=True, text=True).stdout.splitlines()) == 4
    state_file.unlink()
    assert len(subprocess.run(["sh", script, "-L"], capture_output=True, text=True).stdout.splitlines()) == 1


def test_a_machine_without_gpus_has_a_script_too(tmp_path: Path) -> None:
    machine = load_machine("t4")
    empty = machine.model_copy(update={"hardware": machine.hardware.model_copy(update={"gpus": ()})})
    state = create_state(empty, tmp_path / "state.json")
    done = subprocess.run(
        ["sh", "-c", smi_script(state, tmp_path / "gone", dev=tmp_path), "nvidia-smi", "-L"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (6, "No devices were found\n")


MACHINES = ("a100-sxm4-40gb", "h100-nvl", "gb200", "rtx-pro-6000", "l40s", "t4")

QUESTIONS = (
    "",
    "-L",
    "--version",
    "-q",
    "-q -i 1",
    "-q -d MEMORY,COMPUTE,PIDS",
    "-q --display=UTILIZATION -i 0",
    f"--query-gpu={','.join(field.name for field in GPU_FIELDS if field.name != 'timestamp')} --format=csv",
    f"--query-gpu={','.join(name for field in GPU_FIELDS for name in field.aliases)} --format=csv,nounits",
    "--query-gpu=memory.total --format=csv,noheader,nounits",
    "--query-gpu memory.free,utilization.gpu --format csv,noheader --id 1",
    "--format=nounits,csv --query-gpu=name,fan.speed,power.draw",
    "--query-compute-apps=pid,process_name,gpu_uuid,used_memory --format=csv",
    "--query-compute-apps=pid --format=csv,noheader",
    "-i 1,0",
    "-i 1 -L",
    "-L -i 77",
    "-i GPU-77 --query-gpu=name --format=csv",
    "--query-gpu=name,nonsense --format=csv",
    "--query-compute-apps=nonsense --format=csv",
)
REFUSALS = (
    "--query-gpu=name",
    "--query-gpu=name --format=json",
    "--query-gpu=name --format=csv,nohead",
    "--query-gpu=name --format=noheader",
    "--query-gpu",
    "-q -d NOTHING",
    "-q --format=csv",
    "-L -d MEMORY",
    "-q -x",
    "-l",
    "-l 5",
    "-lms 500",
    "--nonsense",
    "topo -m",
    "-i",
)


def without_time(answer: Answer) -> Answer:
    """The table begins with the time, and the log has it."""
    code, out, err = answer
    date = "[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} [0-9]{4}"
    return code, re.sub(f"^(Timestamp +: )?{date}", "<time>", out, flags=re.MULTILINE), err


class Both:
    """A simulated node, and a container that has all of its devices."""

    def __init__(self, folder: Path, machine: str | MachineDescription) -> None:
        self.root, self.state_file = build(folder, machine)
        self.dev = folder / "dev"
        (self.dev / "nvidia-caps").mkdir(parents=True)
        self.script = self.root / SMI_PATH
        self.script.write_text(self.fresh())
        for gpu in self.file.read().machine.hardware.gpus:
            (self.dev / f"nvidia{gpu.minor}").touch()

    @property
    def file(self) -> StateFile:
        return StateFile(self.state_file)

    def fresh(self) -> str:
        return smi_script(self.file.read(), self.state_file, python=Path("/none"), dev=self.dev)

    def show_mig_devices(self) -> None:
        """Its capability nodes are those that exist now."""
        for access in (self.root / capabilities.FOLDER).rglob("gi*/**/access"):
            minor = access.read_text().splitlines()[0].split()[1]
            (self.dev / f"nvidia-caps/nvidia-cap{minor}").touch()

    def on_the_node(self, question: str) -> Answer:
        return call_smi(str(self.state_file), *question.split())

    def in_a_container(self, question: str, shell: list[str]) -> Answer:
        return call_script(shell, self.script, *question.split(), path="/usr/bin:/bin")

    def agree(self, questions: Iterable[str]) -> None:
        for question in questions:
            expected = without_time(self.on_the_node(question))
            for shell in SHELLS:
                answer = without_time(self.in_a_container(question, shell))
                assert answer[:2] == expected[:2], f"nvidia-smi {question} in {shell}"
                assert bool(answer[2]) <= bool(expected[2]), "a container's refusal says why"


@pytest.mark.process
@pytest.mark.parametrize("machine", MACHINES)
def test_a_container_and_the_node_agree(tmp_path: Path, machine: str) -> None:
    Both(tmp_path, machine).agree(QUESTIONS)


@pytest.mark.process
def test_a_container_and_the_node_agree_on_unified_memory(tmp_path: Path) -> None:
    machine = load_machine("t4")
    product = machine.hardware.products[0].model_copy(update={"memory_bytes": None, "power_limit_milliwatts": None})
    hardware = machine.hardware.model_copy(update={"products": (product,)})
    both = Both(tmp_path, machine.model_copy(update={"hardware": hardware}))
    both.agree(QUESTIONS)
    query = "--query-gpu=memory.total,memory.used,power.limit --format=csv,noheader,nounits -i 0"
    assert both.on_the_node(query) == (0, "[N/A], [N/A], [N/A]\n", "")
    assert "| Not Supported          |" in both.on_the_node("")[1]


@pytest.mark.process
def test_a_container_and_the_node_refuse_the_same(tmp_path: Path) -> None:
    both = Both(tmp_path, "h100-nvl")
    for question in REFUSALS:
        code, out, err = both.on_the_node(question)
        assert (code, out) == (2, ""), question
        assert err
        for shell in SHELLS:
            code, out, err = both.in_a_container(question, shell)
            assert (code, out) == (2, ""), f"{question} in {shell}"
            assert err.startswith(f"nvidia-smi {question}: ")


@pytest.mark.process
@pytest.mark.parametrize("machine", ["h100-nvl", "rtx-pro-6000", "a100-sxm4-40gb"])
def test_they_agree_after_everything_that_can_change(tmp_path: Path, machine: str) -> None:
    """A container has one script all the time: it is written again in place, and every line stays where it was."""
    both = Both(tmp_path, machine)
    identity, lengths = both.script.stat().st_ino, [len(line) for line in both.script.read_text().splitlines()]

    def check() -> None:
        assert both.script.read_text() == both.fresh(), "what follows the state is what a build would make"
        assert [len(line) for line in both.script.read_text().splitlines()] == lengths
        assert both.script.stat().st_ino == identity
        both.show_mig_devices()
        both.agree(("", "-L", "-q", QUESTIONS[7]))

    def change(**changes: object) -> None:
        both.file.update(lambda state: state.with_gpu(1, state.gpus[1].model_copy(update=changes)))

    for mode in (3, 2, 0):
        change(compute_mode=mode)
        check()
    assert both.on_the_node("-i 1 -mig 1")[0] == 0
    check()
    faults.reset_gpu(both.state_file, 1)
    check()
    profiles = both.file.read().product(1).mig_profiles or ()
    largest = max(profiles, key=lambda each: (each.instances, len(each.name)))
    wanted = ",".join([str(largest.id)] * largest.instances)
    assert both.on_the_node(f"mig -i 1 -cgi {wanted} -C")[0] == 0
    check()
    assert both.on_the_node("mig -i 1 -dci")[0] == both.on_the_node("mig -i 1 -dgi")[0] == 0
    check()
    assert both.on_the_node("-i 1 -mig 0")[0] == 0
    check()


def test_lines_that_change_have_room_for_the_longest_texts(tmp_path: Path) -> None:
    for name in recorded_machines():
        both = Both(tmp_path / name, name)
        lines = both.script.read_text().splitlines()
        changing = [line for line in lines if line.endswith(" ")]
        assert changing
        assert {len(line) for line in changing} == {160, 512}, name


def test_a_limit_has_room_for_the_cgroup_of_a_pods_container(tmp_path: Path) -> None:
    """Of systemd: the longest there are."""
    both = Both(tmp_path, "b200")
    uid = "_".join(("12345678", "1234", "1234", "1234", "123456789012"))
    pod = f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice"
    cgroup = f"/sys/fs/cgroup/{pod}/cri-containerd-{'f' * 64}.scope"
    limit = MemoryLimitState(cgroup=cgroup, inode=2**64 - 1, soft=0, hard=180 << 30)
    before = [len(line) for line in both.script.read_text().splitlines()]
    both.file.update(lambda state: state.with_gpu(0, state.gpus[0].model_copy(update={"memory_limits": (limit,)})))
    assert [len(line) for line in both.script.read_text().splitlines()] == before
    assert cgroup.removeprefix("/sys/fs/cgroup") in both.script.read_text()


@pytest.mark.process
def test_a_container_sees_no_processes(tmp_path: Path) -> None:
    """Those of other PID namespaces are hidden from the real one too."""
    both = Both(tmp_path, "h100-nvl")
    faults.add_client(both.state_file, both.file.read().gpus[0].uuid, pid=77)
    query = "--query-compute-apps=pid --format=csv,noheader"
    assert both.on_the_node(query)[1] == "77\n"
    assert both.in_a_container(query, SHELLS[0]) == (0, "", "")


@pytest.mark.process
def test_an_mps_environment_changes_nothing(tmp_path: Path) -> None:
    both = Both(tmp_path, "t4")
    environment = {"PATH": "/none", "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps"}
    done = subprocess.run(["/bin/sh", both.script, "-L"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == both.on_the_node("-L")
