"""Kubernetes Events about objects, written by a thread of their own so that nobody ever waits for them.

Repetitions are folded as ``kubectl get events`` expects (core/v1, ``count`` and ``lastTimestamp``): the first event of
an (object, reason, message) is created at once, later ones update it at most once a minute. An object that is the
subject of many different events is limited too (as client-go's spam filter does: a burst of 25, then one every five
minutes). Whatever fails is logged and dropped: an Event is never a reason for work to fail.
"""

from __future__ import annotations

import heapq
import logging
import queue
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from dra_driver.kube.backoff import TokenBucket
from dra_driver.kube.interface import EVENTS, AlreadyExists, ApiError, KubeApi, NotFound, Obj
from dra_driver.observability.loops import Loop
from dra_driver.text import shortened

logger = logging.getLogger(__name__)

_REASON_LIMIT = 128
_REMEMBERED = 4096
_OBJECT_BURST = 25
_OBJECT_RATE = 1 / 300
_LIMIT_SECONDS = 60.0  # for one Event: a request with its own time limit


class EventKind(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """What an Event is about."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    namespace: str = ""  # empty for cluster-scoped objects; their Events go to namespace default

    @classmethod
    def of(cls, obj: Obj) -> ObjectRef:
        """The reference of an API object that carries its apiVersion and kind."""
        metadata = obj.get("metadata", {})
        return cls(
            api_version=obj.get("apiVersion", ""),
            kind=obj.get("kind", ""),
            name=metadata.get("name", ""),
            uid=metadata.get("uid", ""),
            namespace=metadata.get("namespace", ""),
        )


@dataclass(frozen=True, slots=True)
class _Key:
    regarding: ObjectRef
    kind: str
    reason: str
    message: str


@dataclass(slots=True)
class _Series:
    """One Event object on the server and what was not written to it yet."""

    name: str
    count: int = 0
    unwritten: int = 0
    last_seen: str = ""
    written_at: float = 0.0
    scheduled: bool = False


class EventRecorder:
    """Records Events of ``component`` on ``host`` between start and stop. Thread-safe; :meth:`event` never blocks."""

    def __init__(
        self,
        api: KubeApi,
        component: str,
        host: str = "",
        *,
        interval: float = 60.0,
        capacity: int = 1000,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``interval``: seconds between two writes to one Event. ``capacity``: events waiting; more are dropped."""
        self._api = api
        self._component = component
        self._host = host
        self._interval = interval
        self._clock = clock
        self._wall_clock = wall_clock
        self._incoming: queue.Queue[tuple[_Key, str]] = queue.Queue(capacity)
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        self._budgets: OrderedDict[ObjectRef, TokenBucket] = OrderedDict()
        self._due: list[tuple[float, int, _Key]] = []
        self._sequence = 0
        self.loop = Loop("events", self._round, limit=_LIMIT_SECONDS, doing="writing Events", finish=True)
        self.dropped = 0

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Write what waits, including counts held back, then end the thread; give up after ``timeout`` seconds."""
        if not self.loop.stop(timeout):
            logger.warning("events were not all written within %.0f s of stopping", timeout)

    def event(self, regarding: ObjectRef, kind: str, reason: str, message: str) -> None:
        """Record one Event; ``kind`` is Normal or Warning. Returns at once and never raises."""
        if self.loop.stopping:
            return
        key = _Key(regarding, str(kind), reason[:_REASON_LIMIT], shortened(message))
        try:
            self._incoming.put_nowait((key, self._now()))
        except queue.Full:
            self.dropped += 1
            logger.warning("event dropped, the queue is full", extra={"reason": reason, "object": regarding.name})
        self.loop.wake()

    # -- the events thread ------------------------------------------------------------------------------------------

    def _round(self) -> float | None:
        """One event that came in, and what is due; the last round of all writes what is not due yet as well."""
        last = self.loop.stopping and self._incoming.empty()
        try:
            item = self._incoming.get_nowait()
        except queue.Empty:
            item = None
        try:
            if item is not None:
                self._record(*item)
            self._write_due(everything=last)
        except Exception:
            # One event that cannot be handled must not hold up all later ones.
            logger.exception("an event could not be recorded")
            self.loop.count_error()
        return 0.0 if item is not None else self._until_due()

    def _until_due(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, self._due[0][0] - self._clock())

    def _record(self, key: _Key, seen: str) -> None:
        series = self._series.get(key)
        if series is None:
            if not self._budget(key.regarding).try_take():
                self.dropped += 1
                logger.debug("event dropped, too many about one object", extra={"object": key.regarding.name})
                return
            series = self._series[key] = _Series(name="")
            self._forget_old()
        self._series.move_to_end(key)
        series.unwritten += 1
        series.last_seen = seen
        if not series.name:
            self._create(key, series)
        elif not series.scheduled:
            series.scheduled = True
            self._sequence += 1
            heapq.heappush(self._due, (series.written_at + self._interval, self._sequence, key))

    def _write_due(self, *, everything: bool) -> None:
        while self._due and (everything or self._due[0][0] <= self._clock()):
            _, _, key = heapq.heappop(self._due)
            series = self._series.get(key)
            if series is None:
                continue
            series.scheduled = False
            if series.unwritten:
                self.loop.beat()
                self._update(key, series)

    def _create(self, key: _Key, series: _Series) -> None:
        name = f"{key.regarding.name[:230]}.{secrets.token_hex(8)}"
        series.count = series.unwritten
        try:
            self._api.create(EVENTS, self._body(key, series, name))
        except AlreadyExists:
            logger.debug("event name %s is taken; the next occurrence tries another", name)
            return
        except ApiError as error:
            logger.warning("event not written: %s", error, extra={"reason": key.reason, "object": key.regarding.name})
            return
        series.name = name
        self._written(series)

    def _update(self, key: _Key, series: _Series) -> None:
        count = series.count + series.unwritten
        patch: Obj = {"count": count, "lastTimestamp": series.last_seen}
        try:
            self._api.patch(EVENTS, series.name, patch, _namespace(key.regarding))
        except NotFound:
            # Events expire on the server (one hour by default): begin a new one.
            series.name, series.count = "", 0
            self._create(key, series)
            return
        except ApiError as error:
            logger.warning("event count not written: %s", error, extra={"reason": key.reason})
            return
        series.count = count
        self._written(series)

    def _written(self, series: _Series) -> None:
        series.unwritten = 0
        series.written_at = self._clock()

    def _body(self, key: _Key, series: _Series, name: str) -> Obj:
        regarding = key.regarding
        involved = {
            "apiVersion": regarding.api_version,
            "kind": regarding.kind,
            "name": regarding.name,
            "namespace": regarding.namespace,
            "uid": regarding.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": _namespace(regarding)},
            "involvedObject": {field: value for field, value in involved.items() if value},
            "type": key.kind,
            "reason": key.reason,
            "message": key.message,
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "firstTimestamp": series.last_seen,
            "lastTimestamp": series.last_seen,
            "count": series.count,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    def _budget(self, regarding: ObjectRef) -> TokenBucket:
        budget = self._budgets.get(regarding)
        if budget is None:
            budget = self._budgets[regarding] = TokenBucket(_OBJECT_RATE, _OBJECT_BURST, clock=self._clock)
        self._budgets.move_to_end(regarding)
        return budget

    def _forget_old(self) -> None:
        while len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)
        while len(self._budgets) > _REMEMBERED:
            self._budgets.popitem(last=False)

    def _now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock()))


def _namespace(regarding: ObjectRef) -> str:
    return regarding.namespace or "default"
