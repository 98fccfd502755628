"""A driver at work on the node, started from nothing: what a case is given to measure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from e2e.bench.pods import PodBench
from e2e.bench_peer.claims import Claims
from e2e.bench_peer.client import connected
from e2e.bench_peer.comparison import Seen
from e2e.bench_peer.drivers import Driver, Program
from e2e.bench_peer.figures import Figures
from e2e.bench_peer.node import BenchNode
from e2e.bench_peer.processes import Measured, cpu_ms, less_idle
from e2e.bench_peer.registrations import PATIENCE, Registrations, any_moment
from e2e.bench_peer.settings import Setting
from e2e.bench_peer.slices import SliceWatch, watching
from tests.bench.calls import Calls

_SETTLE_SECONDS = 1.5  # what a start has left to do when its slices are there
_IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Run:
    """What all drivers and cases of one run share."""

    node: BenchNode
    claims: Claims
    pods: PodBench
    registrations: Registrations
    figures: Figures = field(default_factory=Figures)
    seen: Seen = field(default_factory=Seen)


@dataclass(slots=True)
class Serving:
    """A driver that serves. ``others`` are its processes besides the plugin."""

    run: Run
    driver: Driver
    setting: Setting
    plugin: Measured
    others: tuple[Measured, ...]
    slices: SliceWatch
    client: Calls
    _idle_ms_per_s: tuple[float, float] | None = None

    def add(self, case: str, unit: str, *values: float) -> None:
        self.run.figures.add(self.driver.side, case, unit, *values)

    def show(self, what: str, thing: object) -> None:
        """Something to compare with the other driver's."""
        self.run.seen.add(what, self.driver.side, thing)

    def start_plugin(self) -> None:
        """Again, after its process was stopped; the processes besides are as they were."""
        node = self.run.node
        self.plugin = node.start(self.driver.plugin(self.setting, node.around))

    @property
    def everything(self) -> tuple[Measured, ...]:
        return (self.plugin, *self.others)

    def cpu_ms(self) -> tuple[float, float]:
        """Processor time so far: the plugin's, and that of all processes."""
        own = self.plugin.cpu_ms()
        return own, own + cpu_ms(self.others)

    def idle_ms_per_s(self, seconds: float = _IDLE_SECONDS) -> tuple[float, float]:
        """Processor time in a second without work, measured once; as ``cpu_ms``."""
        if self._idle_ms_per_s is None:
            began, before = time.monotonic(), self.cpu_ms()
            time.sleep(seconds)
            after, took = self.cpu_ms(), time.monotonic() - began
            self._idle_ms_per_s = ((after[0] - before[0]) / took, (after[1] - before[1]) / took)
        return self._idle_ms_per_s


@dataclass(slots=True)
class Work:
    """Processor time of some work, in milliseconds: the plugin's, and that of all processes."""

    plugin: float = 0.0
    everything: float = 0.0


@contextmanager
def working(serving: Serving, parts: int) -> Iterator[Work]:
    """Filled at the end: for each of ``parts`` of the work, without what the processes take when idle for as long."""
    idle = serving.idle_ms_per_s()
    found, began, before = Work(), time.monotonic(), serving.cpu_ms()
    yield found
    after, took = serving.cpu_ms(), time.monotonic() - began
    found.plugin, found.everything = (
        less_idle(after[which] - before[which], idle[which], took) / parts for which in range(len(idle))
    )


@contextmanager
def serving(run: Run, driver: Driver, setting: Setting) -> Iterator[Serving]:
    """All processes of ``driver``, started at once from nothing; the start is measured. What fails says the ends of
    their logs."""
    node = run.node
    programs = (*driver.others(setting, node.around), driver.plugin(setting, node.around))
    with ExitStack() as stack:
        node.forget()
        run.registrations.wait_for_none()
        any_moment()
        stack.callback(node.forget)
        slices = stack.enter_context(watching(node.api, node.name))
        began = time.monotonic()
        started = tuple(stack.enter_context(_started(node, program)) for program in programs)
        try:
            whole = slices.wait_whole(PATIENCE)
            run.figures.add(driver.side, f"process start -> slices visible, {setting.devices}", "s", whole - began)
            client = stack.enter_context(connected(node))
            *others, plugin = started
            found = Serving(run, driver, setting, plugin, tuple(others), slices, client)
            time.sleep(_SETTLE_SECONDS)
            yield found
        except Exception as error:
            error.add_note(node.log_tail([program.name for program in programs]))
            raise


@contextmanager
def _started(node: BenchNode, program: Program) -> Iterator[Measured]:
    process = node.start(program)
    try:
        yield process
    finally:
        node.stop(program.name)
