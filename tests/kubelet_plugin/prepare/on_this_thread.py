"""The work of one claim on the calling thread, for tests that fork or that kill it in the middle."""

from __future__ import annotations

from dra_driver.errors import DriverError
from kubelet_plugin.claims.model import ClaimRef, Operation
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.flight import RECOVERY, Flight
from kubelet_plugin.prepare.pilot import FlightWork, Outcome
from kubelet_plugin.prepare.recovery import Findings, Recovered


def fly(engine: PrepareEngine, operation: Operation, claim: ClaimRef) -> Outcome:
    """Its outcome. Nobody else may hold what it needs."""
    flight: Flight[Outcome] = Flight(operation, claim, None)
    return _run(engine, (engine._work.prepare if operation is Operation.PREPARE else engine._work.unprepare)(flight))


def start(engine: PrepareEngine) -> Recovered:
    """What the engine's start does, claim by claim."""
    engine._state_folder.mkdir(parents=True, exist_ok=True)
    findings = Findings()
    for entry in tuple(engine.entries().values()):
        flight: Flight[Outcome] = Flight(RECOVERY, entry.ref, None)
        _run(engine, engine._recovery.put_right(flight, findings))
    engine._recovery.tidy()
    return findings.so_far()


def _run(engine: PrepareEngine, work: FlightWork) -> Outcome:
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
