"""The simulated nvidia-smi on a node: what it changes and what it refuses, and the codes it ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import StateFile, capabilities, faults
from tests.simulated_node import NodeMaker
from tests.simulation.hardware.smi.kit import build, call_smi


def test_smi_lists_gpus(make_node: NodeMaker) -> None:
    node = make_node("a30")
    machine = node.hardware.read_machine()
    node.hardware.stop()
    code, out, _ = call_smi(str(node.state_file), "-L")
    assert code == 0
    assert out.splitlines() == [f"GPU {gpu.index}: NVIDIA A30 (UUID: {gpu.uuid})" for gpu in machine.gpus]


def test_smi_tells_versions_and_refuses_the_rest(tmp_path: Path) -> None:
    _, state_file = build(tmp_path)
    code, out, _ = call_smi(str(state_file), "--version")
    assert code == 0
    assert "DRIVER version      : 580.105.08" in out
    assert "CUDA Version        : 13.0" in out
    for options, said in ((("topo", "-m"), "cannot do topo -m"), (("-L", "-x"), "writes no XML")):
        code, out, err = call_smi(str(state_file), *options)
        assert (code, out) == (2, "")
        assert said in err
    assert call_smi()[0] == 2


def test_smi_sees_faults(tmp_path: Path) -> None:
    _, state_file = build(tmp_path)
    faults.lose_gpu(state_file, 1)
    code, out, err = call_smi(str(state_file), "-L")
    assert code == 15
    assert len(out.splitlines()) == 7
    assert "GPU 1" in err
    faults.inject_error(state_file, "nvmlInitWithFlags", Return.DRIVER_NOT_LOADED)
    code, out, err = call_smi(str(state_file), "-L")
    assert (code, out) == (9, "")
    assert "DRIVER_NOT_LOADED" in err
    assert call_smi(str(tmp_path / "nothing"), "-L")[0] == 9


def test_smi_changes_and_lists_mig(tmp_path: Path) -> None:
    root, state_file = build(tmp_path, "h100-sxm5-80gb")
    state, name = StateFile(state_file), str(state_file)
    assert call_smi(name, "mig", "-lgi") == (0, "No GPU instances found: Not Found\n", "")
    assert call_smi(name, "-i", "2", "-mig", "1") == (
        0,
        "Enabled MIG Mode for GPU 00000000:3A:00.0\nAll done.\n",
        "",
    )
    code, out, _ = call_smi(name, "mig", "-i", "2", "-cgi", "9,2g.20gb:0", "-C")
    assert code == 0
    assert out.splitlines() == [
        "Successfully created GPU instance ID  1 on GPU  2 using profile MIG 3g.40gb (ID  9)",
        "Successfully created compute instance ID  0 on GPU  2 GPU instance ID  1 using profile MIG 3g.40gb",
        "Successfully created GPU instance ID  3 on GPU  2 using profile MIG 2g.20gb (ID 14)",
        "Successfully created compute instance ID  0 on GPU  2 GPU instance ID  3 using profile MIG 2g.20gb",
    ]
    devices = [compute.uuid for _, compute in state.read().gpus[2].mig_devices()]
    listing = call_smi(name, "-L")[1].splitlines()
    assert listing[3:5] == [
        f"  MIG 3g.40gb     Device  0: (UUID: {devices[0]})",
        f"  MIG 2g.20gb     Device  1: (UUID: {devices[1]})",
    ]
    assert len(listing) == 10
    rows = call_smi(name, "mig", "-lgi")[1].splitlines()
    assert [line.split() for line in rows[5:7]] == [
        ["|", "2", "MIG", "2g.20gb", "14", "3", "0:2", "|"],
        ["|", "2", "MIG", "3g.40gb", "9", "1", "4:4", "|"],
    ]
    assert ["|", "2", "3", "MIG", "2g.20gb", "0", "0:2", "|"] in [
        line.split() for line in call_smi(name, "mig", "-lci")[1].splitlines()
    ]
    profiles = [line.split() for line in call_smi(name, "mig", "-i", "2", "-lgip")[1].splitlines()]
    assert ["|", "2", "MIG", "1g.10gb", "19", "2/7", "9.75", "No", "16", "1", "0", "|"] in profiles
    assert ["|", "2", "MIG", "3g.40gb", "9", "0/2", "39.50", "No", "60", "3", "0", "|"] in profiles
    assert call_smi(name, "mig", "-i", "2", "-dci", "-gi", "3")[0] == 0
    assert call_smi(name, "mig", "-i", "2", "-dgi", "-gi", "3")[1] == (
        "Successfully destroyed GPU instance ID  3 from GPU  2\n"
    )
    assert [each.id for each in state.read().gpus[2].instances] == [1]
    assert (root / capabilities.FOLDER / "gpu2/mig/gi1/ci0/access").is_file()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("mig", "-i", "0", "-cgi", "19:6"), 23, "INSUFFICIENT_RESOURCES"),
        (("mig", "-i", "0", "-cgi", "9:2"), 2, "INVALID_ARGUMENT"),
        (("mig", "-i", "1", "-cgi", "9"), 3, "NOT_SUPPORTED"),
        (("mig", "-i", "0", "-dgi"), 19, "still has compute instances"),
        (("-i", "0", "-mig", "0"), 19, "IN_USE"),
        (("mig", "-i", "0", "-cgi", "5g.60gb"), 2, "no GPU instance profile 5g.60gb"),
        (("mig", "-i", "0", "-cgi", "9:four"), 2, "needs a number"),
        (("mig", "-i", "9", "-lgi"), 6, "no GPU is named 9"),
        (("mig", "-lgi", "-lci"), 2, "one of"),
        (("mig", "-lgi", "--verbose"), 2, "does not know --verbose"),
        (("mig", "-dgi", "-gi", "one"), 2, "must be a number"),
        (("mig", "-i"), 2, "needs a value"),
        (("-mig", "on"), 2, "takes 0 or 1"),
    ],
)
def test_smi_refuses_as_nvml_does(tmp_path: Path, options: tuple[str, ...], code: int, said: str) -> None:
    _, state_file = build(tmp_path, "h100-sxm5-80gb")
    name = str(state_file)
    assert call_smi(name, "-i", "0", "-mig", "1")[0] == 0
    assert call_smi(name, "mig", "-i", "0", "-cgi", "9", "-C")[0] == 0
    before = StateFile(state_file).read()
    answer = call_smi(name, *options)
    assert answer[0] == code
    assert said in answer[2]
    assert StateFile(state_file).read() == before


def test_smi_tells_of_a_mode_that_waits_for_a_reset_and_of_no_mig(tmp_path: Path) -> None:
    _, state_file = build(tmp_path / "a", "a30")
    code, out, _ = call_smi(str(state_file), "-i", "0", "-mig", "1")
    assert code == 0
    assert out.startswith("Warning: MIG mode is in pending enable state for GPU 00000000:17:00.0:")
    _, state_file = build(tmp_path / "b", "t4")
    assert call_smi(str(state_file), "mig", "-lgip") == (3, "No MIG-supported devices found.\n", "")
