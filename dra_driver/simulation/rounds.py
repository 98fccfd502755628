"""The loop of a control loop: one thread that does a round when something has changed, and again soon when one failed.

A round reads everything afresh; of the changes only the news is used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from dra_driver.kube.backoff import Backoff
from dra_driver.kube.interface import ApiError, KubeApi, Obj, Resource
from dra_driver.kube.reflector import Reflector
from dra_driver.observability.events import EventRecorder

logger = logging.getLogger(__name__)

_RETRY_SECONDS, _RETRY_LIMIT_SECONDS = 0.1, 10.0
_IDLE_SECONDS = 60.0
_END_SECONDS, _EVENTS_SECONDS = 5.0, 2.0


class Rounds:
    """Thread ``name``, ``events``, and a reflector for each of ``resources``, between start and stop.

    ``run_once`` is one round; it gives False when something has to be tried again soon.
    """

    def __init__(
        self,
        name: str,
        api: KubeApi,
        resources: Sequence[Resource],
        events: EventRecorder,
        run_once: Callable[[], bool],
    ) -> None:
        self._name = name
        self._events = events
        self._run_once = run_once
        self._reflectors = tuple(Reflector(api, resource, self._changed) for resource in resources)
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is not None:
            return
        self._events.start()
        for reflector in self._reflectors:
            reflector.start()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """1. The loop ends after its round. 2. The watches. 3. The events that were recorded are written."""
        if self._thread is None:
            return
        self._stopping.set()
        self._news.set()
        self._thread.join(_END_SECONDS)
        for reflector in self._reflectors:
            reflector.stop()
        self._events.stop(timeout=_EVENTS_SECONDS)
        self._thread = None

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        self._news.set()

    def _run(self) -> None:
        backoff = Backoff(_RETRY_SECONDS, _RETRY_LIMIT_SECONDS)
        while not self._stopping.is_set():
            try:
                settled = self._run_once()
            except ApiError as error:
                logger.warning("a round of %s failed, trying again: %s", self._name, error)
                settled = False
            except Exception:
                # Thread boundary: a fault in one round must not end the others.
                logger.exception("a round of %s broke, trying again", self._name)
                settled = False
            if settled:
                backoff.reset()
            # A change during the round is news for the next one.
            self._news.wait(_IDLE_SECONDS if settled else backoff.next_delay())
            self._news.clear()
