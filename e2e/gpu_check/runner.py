"""Makes the checks: all on the hardware, then all on a simulation of it, each within its time and on its own.

The two sides never share NVML: the hardware's library is shut down before the simulated one takes its place, and does
not come back. A check that hangs in the driver is left behind on its thread; what it may still do then goes to the
simulated library, which refuses handles that it has not given out.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from dra_driver.errors import DriverError
from dra_driver.hardware.nvml import Reading
from dra_driver.hardware.nvml.library import load_driver_library
from dra_driver.simulation.hardware import MachineDescription, StateFile, create_state, host_root, install
from e2e.gpu_check.adapter import captured
from e2e.gpu_check.checks import CHECKS, Check
from e2e.gpu_check.facts import Difference, Facts, NotHere, compare
from e2e.gpu_check.read_only import guard
from e2e.gpu_check.side import Side, simulated_side

T = TypeVar("T")


class Outcome(StrEnum):
    OK = "ok"
    DIFFERS = "differs"
    NOT_HERE = "not here"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Result:
    """``says`` is for the table, ``trace`` for the end of the report."""

    check: str
    outcome: Outcome
    says: str
    differences: tuple[Difference, ...] = ()
    trace: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for one check on one side, and for everything."""

    check: float = 20.0
    total: float = 270.0


class OutOfTime(Exception):  # an outcome of a check
    """A check did not end in its time."""


@dataclass(frozen=True, slots=True)
class _Ended(Generic[T]):
    """What became of a piece of work: its value or its error."""

    value: T | None
    error: Exception | None
    seconds: float


class Runner:
    """One run, on ``side``, which is not started. ``folder`` is an empty one for the simulation."""

    def __init__(
        self, side: Side, folder: Path, *, limits: Limits = Limits(), checks: Sequence[Check] = CHECKS
    ) -> None:
        self._side = side
        self._folder = folder
        self._limits = limits
        self._checks = checks
        self._deadline = 0.0

    def start(self) -> Reading:
        """Load the library, let through only what reads, initialise, and read all GPUs once.

        HardwareError as the plugin gets it; OutOfTime when the driver does not answer.
        """
        self._deadline = time.monotonic() + self._limits.total
        started = self._within(self._first_reading)
        if started.error is not None:
            raise started.error
        return self._side.reading

    def _first_reading(self) -> Reading:
        load_driver_library(self._side.driver_root)
        guard()
        self._side.hardware.start()
        return self._side.reading

    def results(self) -> list[Result]:
        """In the order of the checks, then one about the simulation if it could not be made."""
        here = {check.name: self._within(partial(check.ask, self._side)) for check in self._living()}
        node = {check.name: self._against_node(check, here[check.name]) for check in self._living()}
        description = self._within(partial(captured, self._side))
        stopped = self._within(self._side.hardware.stop)
        here |= {check.name: self._within(partial(check.ask, self._side)) for check in self._ended()}
        made: _Ended[Side] = _Ended(None, description.error or stopped.error, 0.0)
        if made.error is None and description.value is not None:
            made = self._within(partial(self._simulate, description.value))
        there = self._on_simulation(made.value)
        results = [
            _result(check.name, here[check.name], node.get(check.name), there.get(check.name)) for check in self._checks
        ]
        if made.error is not None:
            results.append(_broken("simulation", "this machine cannot be simulated: ", made.error, made.seconds))
        return results

    def _living(self) -> list[Check]:
        return [check for check in self._checks if not check.after_shutdown]

    def _ended(self) -> list[Check]:
        return [check for check in self._checks if check.after_shutdown]

    def _against_node(self, check: Check, asked: _Ended[Facts]) -> _Ended[tuple[Difference, ...]]:
        against = check.against_node
        if against is None or asked.error is not None:
            return _Ended((), None, 0.0)
        return self._within(partial(against, self._side))

    def _simulate(self, description: MachineDescription) -> Side:
        """As privileged as we are: what root may do on hardware, root may do there."""
        state_file, tree = self._folder / "gpus.json", self._folder / "host"
        create_state(description, state_file, seed="gpu-check")
        StateFile(state_file).update(lambda state: state.model_copy(update={"privileged": os.geteuid() == 0}))
        host_root.build(tree, state_file)
        install(state_file)
        side = simulated_side(state_file, tree)
        side.hardware.start()
        return side

    def _on_simulation(self, side: Side | None) -> dict[str, _Ended[Facts]]:
        if side is None:
            return {}
        answers = {check.name: self._within(partial(check.ask, side)) for check in self._living()}
        self._within(side.hardware.stop)
        answers |= {check.name: self._within(partial(check.ask, side)) for check in self._ended()}
        return answers

    def _within(self, work: Callable[[], T]) -> _Ended[T]:
        """``work`` on a thread of its own. What hangs in C cannot be ended from outside, only left."""
        began = time.monotonic()
        seconds = min(self._limits.check, self._deadline - began)
        ended: list[_Ended[T]] = []

        def run() -> None:
            try:
                value = work()
            except Exception as error:  # noqa: BLE001  # whatever a check ends with is its result
                ended.append(_Ended(None, error, time.monotonic() - began))
            else:
                ended.append(_Ended(value, None, time.monotonic() - began))

        if seconds <= 0:
            return _Ended(None, NotHere(f"the {self._limits.total:.0f} s of the whole check were over"), 0.0)
        thread = threading.Thread(target=run, name="gpu-check", daemon=True)
        thread.start()
        thread.join(seconds)
        return ended[0] if ended else _Ended(None, OutOfTime(f"no answer within {seconds:.0f} s"), seconds)


def _result(
    name: str, here: _Ended[Facts], node: _Ended[tuple[Difference, ...]] | None, there: _Ended[Facts] | None
) -> Result:
    for asked, where in ((here, ""), (node, "against this machine: ")):
        if asked is not None and asked.error is not None:
            return _broken(name, where, asked.error, asked.seconds)
    facts = here.value or {}
    wrong = (node.value or ()) if node is not None else ()
    seconds = here.seconds + (node.seconds if node is not None else 0.0)
    if there is None:
        outcome = Outcome.DIFFERS if wrong else Outcome.NOT_HERE
        return Result(name, outcome, "there is no simulation to compare with", wrong, seconds=seconds)
    if there.error is not None:
        return _broken(name, "on the simulation: ", there.error, there.seconds)
    found = (*wrong, *compare(facts, there.value or {}))
    if found:
        return Result(name, Outcome.DIFFERS, f"{len(found)} of {len(facts)}", found, seconds=seconds)
    return Result(name, Outcome.OK, f"{len(facts)} the same", seconds=seconds)


def _broken(name: str, where: str, error: Exception, seconds: float) -> Result:
    if isinstance(error, NotHere):
        return Result(name, Outcome.NOT_HERE, f"{where}{error}", seconds=seconds)
    sentence = str(error) if isinstance(error, DriverError | OutOfTime) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return Result(name, Outcome.BROKEN, f"{where}{sentence}", trace=trace, seconds=seconds)
