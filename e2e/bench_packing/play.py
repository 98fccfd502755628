"""Plays traffic against the cluster: pods come at their times, live from being scheduled, and go; claims end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush

from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, KubeApi, NotFound
from e2e.bench_packing.beginnings import NAMESPACE, Beginnings, name_of
from e2e.bench_packing.nodes import TOLERATIONS
from e2e.bench_packing.room import Room
from e2e.bench_packing.seen import Pod, Seen, places_of
from e2e.bench_packing.traffic import Traffic
from e2e.kit.recording import following
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, pod

_AT_ONCE = 4
_DRAIN_SECONDS = 120.0
_GONE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Played:
    """``pods``: all that came; those without ``scheduled`` never were. ``busy``: compute slices in use, on average."""

    pods: tuple[Pod, ...]
    seconds: float
    busy: float


@dataclass(slots=True)
class Player:
    """One run of ``traffic``, and on until nobody waits. Use it once."""

    api: KubeApi
    traffic: Traffic
    beginnings: Beginnings
    room: Room
    _seen: Seen = field(init=False)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._seen = Seen(self.room, self._schedule_end)

    def play(self, seconds: float, at_end: Callable[[], None]) -> Played:
        """``at_end`` is called after ``seconds``, on a thread of its own."""
        seen = self._seen
        with contextlib.ExitStack() as stack:
            stack.callback(self._clear)
            listed = self.api.list(RESOURCE_CLAIMS, NAMESPACE).items
            seen.begin({claim["metadata"]["name"]: places_of(claim) for claim in listed})
            stack.enter_context(following(self.api, RESOURCE_CLAIMS, seen.see_claim, NAMESPACE))
            stack.enter_context(following(self.api, PODS, seen.see_pod, NAMESPACE))
            began = time.monotonic()
            busy_before = seen.busy_until_now()
            for number, coming in enumerate(self.traffic.coming):
                self._at(began + coming.at, partial(self._create, number))
            for beginning in self.traffic.beginnings:
                self._at(began + beginning.ends, partial(self.beginnings.end, name_of(beginning.place)))
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="play") as pool:
                futures = self._go_on(pool, lambda: time.monotonic() < began + seconds)
                took, busy = time.monotonic() - began, seen.busy_until_now() - busy_before
                futures.append(pool.submit(at_end))
                drained = time.monotonic() + _DRAIN_SECONDS
                futures += self._go_on(pool, lambda: bool(seen.waiting()) and time.monotonic() < drained)
            for future in futures:
                future.result()
        return Played(tuple(seen.pods.values()), took, busy / took)

    def _go_on(self, pool: ThreadPoolExecutor, goes_on: Callable[[], bool]) -> list[Future[None]]:
        """Do what is due, each on a thread of ``pool``, for as long as ``goes_on`` says so."""
        futures: list[Future[None]] = []
        while goes_on():
            with self._changed:
                wait = min(0.05, self._due[0][0] - time.monotonic()) if self._due else 0.05
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                work = heappop(self._due)[2]
            futures.append(pool.submit(work))
        return futures

    def _at(self, when: float, work: Callable[[], None]) -> None:
        with self._changed:
            self._number += 1
            heappush(self._due, (when, self._number, work))
            self._changed.notify_all()

    def _create(self, number: int) -> None:
        coming, name = self.traffic.coming[number], f"p{number}"
        body = pod(name, Use(template=template_of(coming.profile)), grace=0)
        body["metadata"]["namespace"] = NAMESPACE
        body["spec"]["tolerations"] = list(TOLERATIONS)
        self._seen.create(name, Pod(coming.profile, coming.life, time.monotonic()))
        self.api.create(PODS, body)

    def _schedule_end(self, name: str) -> None:
        self._at(time.monotonic() + self._seen.pods[name].life, partial(self._delete, name))

    def _delete(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.api.delete(PODS, name, NAMESPACE)

    def _clear(self) -> None:
        """All pods that came, and their claims."""
        for name in self._seen.pods:
            self._delete(name)
        eventually(self._check_claims_gone, _GONE_SECONDS)

    def _check_claims_gone(self) -> None:
        claims = self.api.list(RESOURCE_CLAIMS, NAMESPACE).items
        if left := [claim["metadata"]["name"] for claim in claims if claim["metadata"].get("ownerReferences")]:
            raise NotYet(f"{len(left)} claims of pods that are gone are left: {', '.join(left[:3])}")


def template_of(profile: str) -> str:
    return f"mig-{profile.replace('+', '-')}"
