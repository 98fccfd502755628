"""The state file as the C library reads and writes it: what it does not know, and what is no state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.codes import Return
from tests.simulation.nvml_c import mistakes
from tests.simulation.nvml_c.twins import Twins, needs_compiler

pytestmark = needs_compiler


def test_what_nobody_understands_is_kept(tmp_path: Path) -> None:
    """A later version's state keeps its numbers, its texts and the order of its members."""
    twins = Twins(tmp_path, "t4")
    twins.start()
    gpu = twins.gpu(0)
    path = twins.c.state_file
    added = '{"later":{"big":18446744073709551615,"small":1.50e-7,"text":"\\"\\\\\\n\\u00e9€😀","none":null,"list":[[],{}]},'
    path.write_text(added + path.read_text()[1:], encoding="utf-8")
    assert twins.library.nvmlDeviceSetComputeMode(gpu, 3) == Return.SUCCESS
    written = path.read_text(encoding="utf-8")
    assert written.startswith(added.replace("\\u00e9", "é"))
    assert '"computeMode":3' in written


def test_a_state_that_is_none_is_a_machine_without_a_driver(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "t4")
    whole = twins.c.state_file.read_text()
    for content in ("", "{", "[]", whole[:-1], whole + "x", '{"a":"\\u0000"}', "[" * 1000):
        twins.c.state_file.write_text(content)
        assert twins.library.nvmlInit_v2() == Return.DRIVER_NOT_LOADED
    twins.c.state_file.unlink()
    assert twins.library.nvmlInit_v2() == Return.DRIVER_NOT_LOADED
    twins.c.state_file.write_text(whole)
    assert twins.library.nvmlInit_v2() == Return.SUCCESS


@pytest.mark.process
def test_a_state_with_mistakes_ends_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", mistakes.__name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"{mistakes.STATES}\n"), done.stderr
