"""Looks at a cluster again whenever something has changed in it: slices, claims and pods are listed once, then watched.

Changes that come within half a second of each other are one look, and so there are two looks in a second at most; while
nothing changes nothing is asked. A watch that breaks is begun anew by its reflector, with growing pauses.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from dra_driver.cli.shares.reading import ASKED, ClusterView, view
from dra_driver.errors import DriverError
from dra_driver.kube.interface import PODS, KubeApi, Obj
from dra_driver.kube.reflector import Reflector

_SETTLE_SECONDS = 0.5
_TURN_SECONDS = 1.0  # so that a signal is seen on every platform


class Watching:
    """A context. ``looks`` may be ended from another thread with :meth:`stop`."""

    def __init__(self, api: KubeApi, driver: str, node: str | None) -> None:
        self._driver, self._node = driver, node
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._reflectors = tuple(
            Reflector(api, resource, self._changed, transform=_small if resource == PODS else None)
            for resource in ASKED
        )

    def __enter__(self) -> Self:
        for reflector in self._reflectors:
            reflector.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for reflector in self._reflectors:
            reflector.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._news.set()

    def looks(self) -> Iterator[ClusterView | DriverError]:
        """The first look, once all is listed, and one after each change; an error is what :func:`view` raises."""
        while not all(reflector.wait_for_sync(_TURN_SECONDS) for reflector in self._reflectors):
            if self._stopping.is_set():
                return
        while not self._stopping.is_set():
            self._news.clear()
            yield self._look()
            while not self._news.wait(_TURN_SECONDS) and not self._stopping.is_set():
                pass
            self._stopping.wait(_SETTLE_SECONDS)

    def _look(self) -> ClusterView | DriverError:
        slices, claims, pods = (reflector.store.objects() for reflector in self._reflectors)
        try:
            return view(self._driver, slices, claims, pods, node=self._node)
        except DriverError as error:
            return error

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        self._news.set()


def _small(pod: Obj) -> Obj:
    """What is looked at of a pod: a cluster may have many."""
    kept = ("name", "namespace", "uid", "resourceVersion")
    metadata = {name: pod["metadata"][name] for name in kept if name in pod["metadata"]}
    return {"metadata": metadata, "status": {"phase": (pod.get("status") or {}).get("phase")}}
