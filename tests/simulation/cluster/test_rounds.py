"""The loop of scheduler and claim controller: what fails is tried again, and nothing but stop ends it."""

from __future__ import annotations

import threading

from dra_driver.kube.interface import NODES, Unavailable
from dra_driver.observability.events import EventRecorder
from dra_driver.simulation.kubelet.kubelet import ensure_node
from dra_driver.simulation.rounds import Rounds
from dra_driver.simulation.store import EmbeddedApi


def test_a_round_that_fails_or_breaks_is_tried_again_and_a_settled_one_waits_for_news() -> None:
    api = EmbeddedApi()
    outcomes: list[Exception | bool] = [Unavailable("the server is away"), ZeroDivisionError("odd"), False, True, True]
    rounds_done: list[Exception | bool] = []
    settled, settled_again = threading.Event(), threading.Event()

    def run_once() -> bool:
        outcome = outcomes[min(len(rounds_done), len(outcomes) - 1)]
        rounds_done.append(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome:
            (settled_again if settled.is_set() else settled).set()
        return outcome

    rounds = Rounds("rounds-of-a-test", api, (NODES,), EventRecorder(api, "test"), run_once)
    rounds.start()
    rounds.start()
    try:
        assert settled.wait(10)
        ensure_node(api, "n1")
        assert settled_again.wait(10)
        assert rounds_done[:4] == outcomes[:4]
        assert [thread.name for thread in threading.enumerate()].count("rounds-of-a-test") == 1
    finally:
        rounds.stop()
    rounds.stop()
    assert "rounds-of-a-test" not in [thread.name for thread in threading.enumerate()]
    assert api.open_watches == 0
