"""Running a driver root's nvidia-smi: which program, with what, for how long, and what its failures become."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from api.claim_config import TimeSliceInterval
from dra_driver.errors import HardwareError
from dra_driver.hardware.compute_policy import ComputePolicy, TimeSliceUnsupported
from dra_driver.hardware.nvidia_smi import CallEnd, NvidiaSmi, SmiFailed, SmiHangs, SmiMissing
from tests.cdi.driver_root import add_file, add_link

GPU = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"


class Calls:
    """A ``SmiObserver``."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, CallEnd]] = []

    def called(self, command: str, seconds: float, end: CallEnd) -> None:
        assert seconds >= 0
        self.ends.append((command, end))


def program(root: Path, script: str, path: str = "/usr/bin/nvidia-smi") -> Path:
    return add_file(root, path, f"#!/bin/sh\n{script}\n".encode(), executable=True)


def smi(root: Path, calls: Calls | None = None, *, seconds: float = 20.0, library: Path | None = None) -> NvidiaSmi:
    return NvidiaSmi(root, seconds, lambda: library, calls)


def test_it_is_run_without_a_shell_and_its_words_are_the_answer(tmp_path: Path) -> None:
    program(tmp_path, 'printf "%s\\n" "$0" "$@"')
    calls = Calls()
    answer = smi(tmp_path, calls).run("list", "compute-policy", "-i", "$(id)", "a b; echo c")
    assert answer.splitlines() == [f"{tmp_path}/usr/bin/nvidia-smi", "compute-policy", "-i", "$(id)", "a b; echo c"]
    assert calls.ends == [("list", CallEnd.DONE)]


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    """As Debian has it: /usr/bin/nvidia-smi leads by /etc/alternatives to the driver's own folder."""
    program(tmp_path, "echo found", "/usr/lib/nvidia/current/nvidia-smi")
    add_link(tmp_path, "/etc/alternatives/nvidia-smi", "/usr/lib/nvidia/current/nvidia-smi")
    add_link(tmp_path, "/usr/bin/nvidia-smi", "/etc/alternatives/nvidia-smi")
    assert smi(tmp_path).run("list") == "found\n"


def test_the_environment_is_bare_and_the_roots_library_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/image/lib")
    program(tmp_path, "/usr/bin/env; pwd")
    given = set(smi(tmp_path).run("list").splitlines())
    shells_own = {"PWD=/", "SHLVL=0", "SHLVL=1", "OLDPWD=/", "_=/usr/bin/env"}
    assert given - shells_own == {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "/"}
    library = tmp_path / "usr/lib64/libnvidia-ml.so.550.163.01"
    assert f"LD_PRELOAD={library}" in smi(tmp_path, library=library).run("list")


def test_a_root_without_it_says_where_it_was_looked_for(tmp_path: Path) -> None:
    calls = Calls()
    with pytest.raises(SmiMissing) as caught:
        smi(tmp_path, calls).run("list")
    assert f"{tmp_path}/usr/bin/nvidia-smi" in caught.value.message
    assert "install it with the NVIDIA driver" in caught.value.hint
    assert caught.value.retryable
    assert calls.ends == []


def test_a_failure_has_its_code_and_its_words(tmp_path: Path) -> None:
    program(tmp_path, "echo to stdout; echo to stderr >&2; exit 4")
    calls = Calls()
    with pytest.raises(SmiFailed) as caught:
        smi(tmp_path, calls).run("set-timeslice", "compute-policy", "-i", GPU)
    assert (caught.value.code, caught.value.output) == (4, "to stdout\nto stderr\n")
    assert f"nvidia-smi compute-policy -i {GPU} failed with exit code 4 (NVML_ERROR_NO_PERMISSION)" in str(caught.value)
    assert calls.ends == [("set-timeslice", CallEnd.FAILED)]


def test_a_signal_is_named(tmp_path: Path) -> None:
    program(tmp_path, "kill -SEGV $$")
    with pytest.raises(SmiFailed, match="was ended by signal 11: without a word"):
        smi(tmp_path).run("list")


def test_what_is_no_program_says_so(tmp_path: Path) -> None:
    add_file(tmp_path, "/usr/bin/nvidia-smi", b"text", executable=False)
    with pytest.raises(SmiFailed, match=r"cannot run .*/usr/bin/nvidia-smi: Permission denied"):
        smi(tmp_path).run("list")


def test_one_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program(tmp_path, f"sleep 600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait")
    calls = Calls()
    with pytest.raises(SmiHangs) as caught:
        smi(tmp_path, calls, seconds=1.0).run("list", "compute-policy", "-i", GPU, "--list")
    assert f"nvidia-smi compute-policy -i {GPU} --list did not end within 1 s and was killed" in str(caught.value)
    assert caught.value.retryable
    assert calls.ends == [("list", CallEnd.KILLED)]
    deadline = time.monotonic() + 10
    for pid in map(int, pids.read_text().split()):
        while is_alive(pid):
            assert time.monotonic() < deadline, f"process {pid} was left"
            time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """One that has ended and that nobody has waited for is dead as well."""
    try:
        return re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is None
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- what is understood of it ------------------------------------------------------------------------------------------

_TABLE = """\
+-------------------------------------+
| GPU compute policies:               |
| GPU     Name           Value        |
|=====================================|
{rows}+-------------------------------------+
"""


class Says:
    """A ``RunsSmi`` with one answer."""

    def __init__(self, answer: str | HardwareError) -> None:
        self._answer = answer
        self.lines: list[str] = []

    def run(self, command: str, *arguments: str) -> str:
        self.lines.append(" ".join(arguments))
        if isinstance(self._answer, HardwareError):
            raise self._answer
        return self._answer


LISTED = [
    (_TABLE.format(rows="|   0     Timeslice      Default      |\n"), TimeSliceInterval.DEFAULT),
    (_TABLE.format(rows="|  13     TIMESLICE      MEDIUM       |\n"), TimeSliceInterval.MEDIUM),
    (_TABLE.format(rows="|   0     Priority       Default      |\n|   0     Timeslice      Long         |\n"),
     TimeSliceInterval.LONG),
    (_TABLE.format(rows="|   0     Timeslice      12 ms        |\n"), None),
    (_TABLE.format(rows="|   0     Timeslice      Undefined    |\n"), None),
    (_TABLE.format(rows="|   0     Timeslice      Long         |\n|   1     Timeslice      Short        |\n"), None),
    (_TABLE.format(rows=""), None),
    ("", None),
    ("GPU 0: Timeslice: Default\n", None),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "interval"), LISTED)
def test_an_interval_is_read_from_the_table_or_is_unknown(answer: str, interval: TimeSliceInterval | None) -> None:
    said = Says(answer)
    assert ComputePolicy(said).interval(GPU) is interval
    assert said.lines == [f"compute-policy -i {GPU} --list"]


@pytest.mark.parametrize(
    ("interval", "number"),
    [
        (TimeSliceInterval.DEFAULT, 0),
        (TimeSliceInterval.SHORT, 1),
        (TimeSliceInterval.MEDIUM, 2),
        (TimeSliceInterval.LONG, 3),
    ],
)
def test_an_interval_is_set_by_its_number(interval: TimeSliceInterval, number: int) -> None:
    said = Says("Successfully set timeslice policy with value Long for GPU 0\n")
    ComputePolicy(said).set_interval(GPU, interval)
    assert said.lines == [f"compute-policy -i {GPU} --set-timeslice {number}"]


_UNSUPPORTED = "Failed to set timeslice policy with value Long for GPU 0 : Not Supported\n"


@pytest.mark.parametrize(
    "answer",
    [
        SmiFailed("it failed", code=3, output=""),
        SmiFailed("it failed", code=255, output=_UNSUPPORTED),
        _UNSUPPORTED,  # with exit code 0
    ],
    ids=["by its code", "by its words", "by its words alone"],
)
def test_a_gpu_without_intervals_is_told_from_other_failures(answer: str | HardwareError) -> None:
    with pytest.raises(TimeSliceUnsupported, match="leave sharing out") as caught:
        ComputePolicy(Says(answer)).set_interval(GPU, TimeSliceInterval.LONG)
    assert not caught.value.retryable


def test_another_failure_stays_what_it_is() -> None:
    failed = SmiFailed("it failed", code=4, output="Insufficient Permissions")
    with pytest.raises(SmiFailed) as caught:
        ComputePolicy(Says(failed)).set_interval(GPU, TimeSliceInterval.LONG)
    assert caught.value is failed


@pytest.mark.parametrize("words", ["Unknown Error", "Insufficient Permissions"])
def test_a_failure_that_only_its_words_tell(words: str) -> None:
    said = Says(f"Failed to set timeslice policy with value Long for GPU 0 : {words}\n")
    with pytest.raises(SmiFailed, match=words):
        ComputePolicy(said).set_interval(GPU, TimeSliceInterval.LONG)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    program(tmp_path, "exit 1")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(SmiFailed):
            smi(tmp_path).run("list")
    assert len(os.listdir("/proc/self/fd")) == before
