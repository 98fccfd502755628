"""compute-policy and the compute mode of the simulated nvidia-smi: options, refusals and exit codes of the real one."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import StateFile, create_state, faults, time_slice
from dra_driver.simulation.hardware.smi.program import main
from dra_driver.simulation.hardware.state import SimulatedState
from tests.kubelet_plugin.prepare.simulated_node import first_gpus


@dataclass
class Said:
    code: int
    out: str
    err: str


Smi = Callable[..., Said]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    create_state(first_gpus("h100-sxm5-80gb", 3), tmp_path / "gpus.json", seed="node-0")
    return tmp_path / "gpus.json"


@pytest.fixture
def smi(state: Path) -> Smi:
    def run(*words: str) -> Said:
        out, err = io.StringIO(), io.StringIO()
        code = main([str(state), *words], out, err)
        return Said(code, out.getvalue(), err.getvalue())

    return run


def seen(state: Path) -> list[tuple[int, int]]:
    """Time slice and compute mode of each GPU."""
    return [(gpu.time_slice, gpu.compute_mode) for gpu in StateFile(state).read().gpus]


def test_an_interval_is_set_for_one_gpu_and_listed(smi: Smi, state: Path) -> None:
    uuid = StateFile(state).read().gpus[1].uuid
    assert smi("compute-policy", "-i", uuid, "--set-timeslice", "3") == Said(
        0, "Successfully set timeslice policy with value Long for GPU 1\n", ""
    )
    assert seen(state) == [(0, 0), (3, 0), (0, 0)]
    assert smi("compute-policy", "-l").out.splitlines()[4:7] == [
        "|   0     Timeslice      Default      |",
        "|   1     Timeslice      Long         |",
        "|   2     Timeslice      Default      |",
    ]
    lines = smi("compute-policy", "--id=1", "--list").out.splitlines()
    assert [line for line in lines if "Timeslice" in line] == ["|   1     Timeslice      Long         |"]
    assert {len(line) for line in lines} == {39}


def test_without_a_gpu_all_are_set(smi: Smi, state: Path) -> None:
    assert smi("compute-policy", "--set-timeslice=2").code == 0
    assert seen(state) == [(2, 0)] * 3


REFUSED = [
    (("compute-policy", "--set-timeslice", "4"), 2, "Failed to set timeslice policy with value 4 for GPU 0 : Invalid"),
    (("compute-policy", "--set-timeslice", "-1"), 2, "Failed to set timeslice policy with value -1 for GPU 0"),
    (("compute-policy", "--set-timeslice", "LONG"), 2, "Failed to set timeslice policy with value LONG"),
    (("compute-policy", "-i", "7", "--set-timeslice", "3"), 6, "No devices were found"),
    (("compute-policy", "-i", "GPU-none", "-l"), 6, "No devices were found"),
    (("compute-policy",), 2, "One, and only one, compute-policy command"),
    (("compute-policy", "-l", "--set-timeslice", "1"), 2, "One, and only one, compute-policy command"),
    (("compute-policy", "--timeslice", "1"), 2, "does not know --timeslice"),
    (("compute-policy", "--set-timeslice"), 2, "needs a value"),
    (("-i", "0", "-c", "4"), 2, "Invalid compute mode: 4"),
    (("-i", "0", "-c", "EXCLUSIVE_THREAD"), 2, "Invalid compute mode: EXCLUSIVE_THREAD"),
    (("-i", "9", "-c", "DEFAULT"), 6, "No devices were found"),
]


@pytest.mark.parametrize(
    ("words", "code", "sentence"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_what_is_refused_changes_nothing(
    words: tuple[str, ...], code: int, sentence: str, smi: Smi, state: Path
) -> None:
    said = smi(*words)
    assert said.code == code
    assert sentence in said.out + said.err
    assert seen(state) == [(0, 0)] * 3


def test_only_root_may(smi: Smi, state: Path) -> None:
    StateFile(state).update(lambda found: found.model_copy(update={"privileged": False}))
    slices, mode = smi("compute-policy", "--set-timeslice", "1"), smi("-c", "PROHIBITED")
    assert (slices.code, mode.code) == (Return.NO_PERMISSION, Return.NO_PERMISSION)
    assert "Failed to set timeslice policy with value Short for GPU 0 : No Permission" in slices.out
    assert "Unable to set the compute mode for GPU" in mode.out
    assert smi("compute-policy", "-l").code == 0
    assert seen(state) == [(0, 0)] * 3


def test_the_compute_mode_by_name_and_by_number(smi: Smi, state: Path) -> None:
    assert "Set compute mode to EXCLUSIVE_PROCESS for GPU" in smi("-i", "0,2", "-c", "EXCLUSIVE_PROCESS").out
    assert seen(state) == [(0, 3), (0, 0), (0, 3)]
    assert "Compute mode is already set to EXCLUSIVE_PROCESS" in smi("-i", "2", "-c", "3").out
    assert smi("--compute-mode=DEFAULT").out.endswith("All done.\n")
    assert seen(state) == [(0, 0)] * 3


@pytest.mark.parametrize(("capability", "has_one"), [("5.2", False), ("6.0", True), ("6.1", False), ("7.0", True)])
def test_old_gpus_have_no_interval(capability: str, has_one: bool, smi: Smi, state: Path) -> None:
    StateFile(state).update(lambda found: with_capability(found, capability))
    for words in (("--set-timeslice", "3"), ("-l",)):
        said = smi("compute-policy", "-i", "0", *words)
        assert said.code == (0 if has_one else Return.NOT_SUPPORTED)
        assert ("Not Supported" in said.out) is not has_one


def with_capability(state: SimulatedState, capability: str) -> SimulatedState:
    hardware = state.machine.hardware
    products = tuple(each.model_copy(update={"cuda_compute_capability": capability}) for each in hardware.products)
    machine = state.machine.model_copy(update={"hardware": hardware.model_copy(update={"products": products})})
    return state.model_copy(update={"machine": machine})


def test_faults_are_played_by_the_commands_names(smi: Smi, state: Path) -> None:
    faults.inject_error(state, time_slice.SET, Return.UNKNOWN, gpu=1, times=1)
    assert smi("compute-policy", "-i", "0", "--set-timeslice", "1").code == 0
    failed = smi("compute-policy", "-i", "1", "--set-timeslice", "1")
    assert (failed.code, failed.out.splitlines()[0]) == (
        255,
        "Failed to set timeslice policy with value Short for GPU 1 : Unknown Error",
    )
    assert smi("compute-policy", "-i", "1", "--set-timeslice", "1").code == 0


def test_a_reset_and_a_reboot_make_all_default(smi: Smi, state: Path) -> None:
    smi("compute-policy", "--set-timeslice", "3")
    smi("-c", "PROHIBITED")
    faults.reset_gpu(state, 1)
    assert seen(state) == [(3, 2), (0, 0), (3, 2)]
    faults.reboot(state, "boot-2")
    assert seen(state) == [(0, 0)] * 3
    assert StateFile(state).read().boot_id == "boot-2"
