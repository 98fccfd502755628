"""The work of one claim on the calling thread, for tests that fork or that kill it in the middle."""

from __future__ import annotations

from dra_driver.errors import DriverError
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.flight import Flight
from kubelet_plugin.prepare.pilot import Outcome
from kubelet_plugin.telling.failures import Operation


def fly(engine: PrepareEngine, operation: Operation, claim: ClaimRef) -> Outcome:
    """Its outcome. Nobody else may hold what it needs."""
    flight: Flight[Outcome] = Flight(operation, claim, None)
    work = (engine._work.prepare if operation is Operation.PREPARE else engine._work.unprepare)(flight)
    try:
        names = next(work)
        while True:
            held = engine._locks.take(names, lambda _answer: None)
            assert held is not None, f"somebody holds {names}"
            names = work.send(held)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    except DriverError as error:
        return error
