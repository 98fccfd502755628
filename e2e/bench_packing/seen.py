"""What watches tell of one run: when pods were created, refused and scheduled, and what was free meanwhile.

Times are those of ``time.monotonic``, as this process sees them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dra_driver.kube.interface import EventType, Obj, WatchEvent
from e2e.bench_packing.room import Place, Room, compute_slices
from e2e.kit.expected import results_of

# A place of which the scheduler may not know yet, or has promised already to a pod that it is binding.
_SURELY_FREE_SECONDS = 1.0


@dataclass(slots=True)
class Pod:
    """``refused``: when the scheduler first said that there is no room. ``room_missed``: there was, for a second."""

    profile: str
    life: float
    created: float
    refused: float | None = None
    scheduled: float | None = None
    room_missed: bool = False

    @property
    def waited(self) -> float | None:
        return None if self.scheduled is None else self.scheduled - self.created


@dataclass(slots=True)
class Seen:
    """Fed by two watches; ``on_scheduled`` is called on their thread, with the pod's name."""

    room: Room
    on_scheduled: Callable[[str], None]
    pods: dict[str, Pod] = field(default_factory=dict)
    free_since: dict[str, float] = field(default_factory=dict)  # by profile; absent while there is no room for it
    busy: float = 0.0  # compute slices x seconds
    _places: dict[str, list[Place]] = field(default_factory=dict)
    _slices: int = 0
    _counted: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, pods: Mapping[str, list[Place]]) -> None:
        """The places that claims hold, by claim, when the watches begin."""
        with self._lock:
            for claim, places in pods.items():
                self._hold(claim, places)

    def create(self, name: str, pod: Pod) -> None:
        with self._lock:
            self.pods[name] = pod

    def busy_until_now(self) -> float:
        with self._lock:
            self._count()
            return self.busy

    def waiting(self) -> list[str]:
        with self._lock:
            return [name for name, pod in self.pods.items() if pod.scheduled is None]

    def see_pod(self, event: WatchEvent) -> None:
        now, name = time.monotonic(), event.object["metadata"]["name"]
        with self._lock:
            pod = self.pods.get(name)
            if pod is None or pod.scheduled is not None:
                return
            if event.object["spec"].get("nodeName"):
                pod.scheduled = now
            elif _is_refused(event.object):
                pod.refused = pod.refused or now
                since = self.free_since.get(pod.profile)
                pod.room_missed |= since is not None and now - since > _SURELY_FREE_SECONDS
        if pod.scheduled is not None:
            self.on_scheduled(name)

    def see_claim(self, event: WatchEvent) -> None:
        gone = event.type is EventType.DELETED
        with self._lock:
            self._hold(event.object["metadata"]["name"], [] if gone else places_of(event.object))

    def _hold(self, claim: str, places: list[Place]) -> None:
        before = self._places.get(claim, [])
        if before == places:
            return
        self._count()
        for place in before:
            self.room.give_back(place)
        for place in places:
            self.room.take(place)
        self._places[claim] = places
        self._slices += sum(map(self._size, places)) - sum(map(self._size, before))
        for profile in self.room.kind.placements:
            if not self.room.spots[profile]:
                self.free_since.pop(profile, None)
            else:
                self.free_since.setdefault(profile, time.monotonic())

    def _count(self) -> None:
        now = time.monotonic()
        self.busy += self._slices * (now - self._counted)
        self._counted = now

    def _size(self, place: Place) -> int:
        """Compute slices, by the profile's name."""
        return compute_slices(self.room.kind.profiles[place[1]])


def places_of(claim: Obj) -> list[Place]:
    return [(result.pool, result.device) for result in results_of(claim)]


def _is_refused(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "PodScheduled" and each.get("reason") == "Unschedulable" for each in conditions)
