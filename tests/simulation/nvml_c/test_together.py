"""Processes on the C library and on the simulation in Python change one state at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.simulation.hardware import host_root
from tests.long_runs import steps
from tests.simulation.nvml_c import churn
from tests.simulation.nvml_c.twins import SimulatedNode, needs_compiler

pytestmark = [needs_compiler, pytest.mark.process]

ROUNDS = steps(40, 15)


def test_no_change_is_lost(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path / "node", "h100-sxm5-80gb", None)
    before = node.file.update(lambda state: state.with_gpu(0, state.gpus[0].with_mode(enabled=True, pending=True)))
    options = (("0", ()), ("1", (str(node.state_file),)), ("2", ()), ("3", (str(node.state_file),)))
    running = [
        subprocess.Popen(
            [sys.executable, "-m", churn.__name__, str(node.root), start, str(ROUNDS), *state],
            stderr=subprocess.PIPE,
            text=True,
        )
        for start, state in options
    ]
    for each in running:
        _, said = each.communicate(timeout=90)
        assert each.returncode == 0, said
    gpu = node.state.gpus[0]
    assert gpu.instances == ()
    assert gpu.creations == len(running) * ROUNDS * 2
    assert gpu.mig_changes == before.gpus[0].mig_changes + len(running) * ROUNDS * 4
    assert host_root.build(node.root, node.state_file) == 0, "the tree shows the state"
    assert not list(node.state_file.parent.glob(".*.tmp"))
