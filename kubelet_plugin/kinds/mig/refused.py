"""Placements that NVML refused although it listed nothing there: remembered for a while, so that no pod is sent there.

Forgotten when an instance is made there after all, or after five minutes: then the next claim tries again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dra_driver.hardware.model import RefusedPlacement
from dra_driver.text import shortened
from kubelet_plugin.kinds.mig.place import MigPlace

_REMEMBERED_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    what: RefusedPlacement
    at: float


class RefusedPlacements:
    """Thread-safe. ``on_change``, when set, is called after each change, on the thread that made it."""

    def __init__(self, *, seconds: float = _REMEMBERED_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._refusals: dict[tuple[str, int, int], _Refusal] = {}
        self._listener: Callable[[], None] = lambda: None

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def remember(self, place: MigPlace, message: str) -> None:
        """A placement that is refused again keeps its first message: what else is on the GPU changes all the time."""
        with self._lock:
            known = self._refusals.get(_key(place))
            what = known.what if known else RefusedPlacement(place.profile_id, place.placement, shortened(message))
            self._refusals[_key(place)] = _Refusal(what, self._clock())
        self._listener()

    def forget(self, place: MigPlace) -> None:
        with self._lock:
            known = self._refusals.pop(_key(place), None)
        if known is not None:
            self._listener()

    def next_expiry(self) -> float | None:
        """Seconds until something will be forgotten; None when there is nothing."""
        with self._lock:
            first = min((each.at for each in self._refusals.values()), default=None)
        return None if first is None else max(0.0, first + self._seconds - self._clock())

    def by_gpu(self) -> Mapping[str, tuple[RefusedPlacement, ...]]:
        """What is still remembered, by GPU UUID, in the order of placements."""
        oldest = self._clock() - self._seconds
        with self._lock:
            self._refusals = {key: each for key, each in self._refusals.items() if each.at > oldest}
            found = list(self._refusals.items())
        refused: dict[str, list[RefusedPlacement]] = {}
        for (gpu, _profile, _start), refusal in found:
            refused.setdefault(gpu, []).append(refusal.what)
        return {gpu: tuple(sorted(each, key=_order)) for gpu, each in refused.items()}


def _key(place: MigPlace) -> tuple[str, int, int]:
    return place.gpu_uuid, place.profile_id, place.placement.start


def _order(refusal: RefusedPlacement) -> tuple[int, int]:
    return refusal.placement.start, refusal.profile_id
