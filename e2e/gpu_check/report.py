"""The report: made to be pasted into a bug report, so it names no board. A heading, a table, differences, traces."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from dra_driver.hardware.model import Machine
from dra_driver.version import __version__
from e2e.gpu_check.facts import shortened
from e2e.gpu_check.runner import Outcome, Result

_MOST_LINES = 30
_WIDEST = 160


def render(machine: Machine, results: Sequence[Result], *, whole: bool = False) -> str:
    """``whole``: UUIDs and every difference in full."""
    lines = [*_heading(machine), "", *_table(results)]
    for result in results:
        if result.differences:
            lines += ["", f"{result.check}:", *_differences(result, whole=whole)]
    for result in results:
        if result.trace:
            lines += ["", f"{result.check}, broken:", result.trace.rstrip()]
    text = "\n".join(lines) + "\n"
    return text if whole else shortened(text)


def _heading(machine: Machine) -> Iterator[str]:
    cuda = f"{machine.cuda_driver_version // 1000}.{machine.cuda_driver_version % 1000 // 10}"
    yield f"gpu-dra {__version__} gpu-check"
    yield f"driver {machine.driver_version}, CUDA {cuda}, nvidia-ml-py {version('nvidia-ml-py')}"
    rights = "root" if os.geteuid() == 0 else "not root"
    yield f"Linux {platform.release()} {platform.machine()}, Python {platform.python_version()}, {rights}"
    for product, count in Counter(gpu.product_name for gpu in machine.gpus).items():
        yield f"{count} x {product}"


def _table(results: Sequence[Result]) -> Iterator[str]:
    width = max(len(result.check) for result in results)
    for result in results:
        says = result.says.splitlines()[0] if result.says else ""
        yield f"{result.check:<{width}}  {result.outcome:<8}  {result.seconds:5.2f} s  {says}"
    counts = Counter(result.outcome for result in results)
    yield ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])


def _differences(result: Result, *, whole: bool) -> Iterator[str]:
    shown = result.differences if whole else result.differences[:_MOST_LINES]
    for each in shown:
        here, there = (text if whole else _cut(text) for text in (each.here, each.there))
        yield f"  {each.what}"
        yield f"    here: {here}"
        yield f"    {each.whose}: {there}"
    if left := len(result.differences) - len(shown):
        yield f"  and {left} more; --whole shows them"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
