"""Pods with a GPU that come and go all the time, while something else happens to the driver."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from dra_driver.kube.interface import ApiError
from e2e.kit.space import GONE_SECONDS, READY_SECONDS, Space
from e2e.kit.waiting import TimedOut
from e2e.kit.workloads import Use, claim_spec, pod

_TEMPLATE = "churn"


@dataclass(slots=True)
class Churn:
    """``rounds`` pods were Ready and went away again; ``problems`` says which were not."""

    rounds: int = 0
    problems: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> None:
        with self._lock:
            self.rounds += 1

    def complain(self, problem: str) -> None:
        with self._lock:
            self.problems.append(problem)


@contextlib.contextmanager
def churning(space: Space, workers: int = 2, node: str = "") -> Iterator[Churn]:
    """From the first Ready pod on, to the end of the context; each worker has one pod at a time."""
    space.template(_TEMPLATE, claim_spec())
    churn = Churn()
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_work, args=(space, f"churn-{number}", node, churn, stopping), name=f"churn-{number}")
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield churn
    finally:
        stopping.set()
        for thread in threads:
            thread.join(READY_SECONDS + GONE_SECONDS)
            if thread.is_alive():
                churn.complain(f"{thread.name}: did not end")


def _work(space: Space, name: str, node: str, churn: Churn, stopping: threading.Event) -> None:
    number = 0
    while not stopping.is_set():
        number += 1
        current = f"{name}-{number}"
        try:
            space.pod(pod(current, Use(template=_TEMPLATE), node=node))
            space.wait_ready(current)
            space.delete_pods(current)
        except (ApiError, TimedOut) as error:
            churn.complain(f"{current}: {error}")
            return
        churn.count()
