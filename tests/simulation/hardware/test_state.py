"""The shared state file: identities, several processes, damage."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pynvml
import pytest

from dra_driver.errors import HardwareUnavailable
from dra_driver.hardware.nvml import MigControl
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import SimulatedState, StateFile, create_state, faults, install
from tests.simulated_node import NodeMaker

_OTHER_PROCESS = """
import sys
from pathlib import Path
import pynvml
from dra_driver.simulation.hardware import install
install(Path(sys.argv[1]))
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(1)
print("ready", pynvml.nvmlDeviceGetComputeMode(handle), flush=True)
for line in sys.stdin:
    pynvml.nvmlDeviceSetComputeMode(handle, int(line))
    print("set", pynvml.nvmlDeviceGetComputeMode(handle), flush=True)
"""


@pytest.mark.process
def test_two_processes_see_one_hardware(make_node: NodeMaker) -> None:
    node = make_node("t4")
    handle = pynvml.nvmlDeviceGetHandleByIndex(1)
    pynvml.nvmlDeviceSetComputeMode(handle, 3)
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER_PROCESS, str(node.state_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready 3\n"
        other.stdin.write("2\n")
        other.stdin.flush()
        assert other.stdout.readline() == "set 2\n"
        assert pynvml.nvmlDeviceGetComputeMode(handle) == 2
        other.kill()
    assert pynvml.nvmlDeviceGetComputeMode(handle) == 2, "the state outlives the process"


def test_two_views_never_lose_an_update(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    create_state("t4", path)
    first, second = StateFile(path), StateFile(path)
    first.read()
    for index, view in ((0, first), (1, second), (2, first), (3, second)):
        view.update(partial(_set_exclusive, index))
    assert [gpu.compute_mode for gpu in first.read().gpus] == [3, 3, 3, 3]


def _set_exclusive(index: int, state: SimulatedState) -> SimulatedState:
    return state.with_gpu(index, state.gpus[index].model_copy(update={"compute_mode": 3}))


def test_a_quick_reader_misses_no_state(tmp_path: Path) -> None:
    """States of one size within one tick of the kernel's clock, with inode numbers given again."""
    path = tmp_path / "state.json"
    create_state("t4", path)
    writer, reader = StateFile(path), StateFile(path)
    for mode in range(200):
        writer.update(partial(_set_mode, mode % 2 * 3))
        assert reader.read().gpus[0].compute_mode == mode % 2 * 3


def _set_mode(mode: int, state: SimulatedState) -> SimulatedState:
    return state.with_gpu(0, state.gpus[0].model_copy(update={"compute_mode": mode}))


@pytest.mark.process
def test_two_processes_create_without_losing_an_instance(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    uuids = [gpu.uuid for gpu in node.file.read().gpus]
    for uuid in uuids:
        MigControl().set_mode(uuid, True)
    script = (
        "import sys; from pathlib import Path; import pynvml\n"
        "from dra_driver.simulation.hardware import install\n"
        "from dra_driver.hardware.nvml import MigControl\n"
        "from dra_driver.hardware.model import MigPlacement\n"
        "install(Path(sys.argv[1])); pynvml.nvmlInit(); control = MigControl()\n"
        "for start in range(7):\n"
        "    made = control.create_gpu_instance(sys.argv[2], 19, MigPlacement(start, 1))\n"
        "    control.create_compute_instance(sys.argv[2], made, 1)\n"
    )
    arguments = [[sys.executable, "-c", script, str(node.state_file), uuid] for uuid in uuids]
    running = [subprocess.Popen(each, cwd=Path(__file__).parents[3]) for each in arguments]
    assert [each.wait(30) for each in running] == [0, 0]
    for gpu in node.file.read().gpus:
        assert [each.start for each in gpu.instances] == list(range(7))
        assert len({compute.uuid for _, compute in gpu.mig_devices()}) == 7
    assert len(list((node.root / "proc/driver/nvidia/capabilities").rglob("ci0/access"))) == 14


def test_an_update_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    create_state("t4", path)
    before = path.stat()
    StateFile(path).update(lambda state: state)
    assert path.stat().st_ino == before.st_ino


def test_a_counted_fault_is_taken_once_between_two_views(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    create_state("t4", path)
    faults.inject_error(path, "nvmlDeviceGetName", Return.UNKNOWN, times=1)
    first, second = StateFile(path), StateFile(path)
    stale_first, stale_second = first.read(), second.read()
    taken = [
        faults.take_error(first, stale_first, "nvmlDeviceGetName", 0),
        faults.take_error(second, stale_second, "nvmlDeviceGetName", 0),
    ]
    assert taken == [Return.UNKNOWN, None]


def test_identities_come_from_machine_seed_and_index(tmp_path: Path) -> None:
    one = create_state("t4", tmp_path / "one", seed="node-1")
    same = create_state("t4", tmp_path / "same", seed="node-1")
    two = create_state("t4", tmp_path / "two", seed="node-2")
    other = create_state("l40s", tmp_path / "other", seed="node-1")
    assert one == same
    uuids = [gpu.uuid for state in (one, two, other) for gpu in state.gpus]
    assert len(set(uuids)) == len(uuids)
    assert one.boot_id != two.boot_id


@pytest.mark.parametrize("content", ["", "{}", '{"machine": 3}', "[1", "null"])
def test_a_damaged_state_is_unavailable_and_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(HardwareUnavailable, match=f"{path} is not a valid state"):
        install(path)


def test_a_missing_state_is_unavailable_and_named(tmp_path: Path) -> None:
    with pytest.raises(HardwareUnavailable, match=str(tmp_path / "nothing")):
        install(tmp_path / "nothing")


def test_the_file_is_plain_json_that_a_person_can_edit(make_node: NodeMaker) -> None:
    node = make_node("t4")
    raw = json.loads(node.state_file.read_text())
    raw["faults"] = {"lostGpus": [0]}
    node.state_file.write_text(json.dumps(raw))
    assert [problem.index for problem in node.hardware.read().problems] == [0]
