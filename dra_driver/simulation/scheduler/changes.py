"""Wakes a control loop when one of several resources changes. The loop reads afresh; only the news is used here."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dra_driver.kube.interface import KubeApi, Obj, Resource
from dra_driver.kube.reflector import Reflector


class Changes:
    """One reflector per resource between start and stop, all setting one event."""

    def __init__(self, api: KubeApi, resources: Sequence[Resource]) -> None:
        self._event = threading.Event()
        self._reflectors = tuple(Reflector(api, resource, self._changed) for resource in resources)

    def start(self) -> None:
        for reflector in self._reflectors:
            reflector.start()

    def stop(self) -> None:
        self.signal()
        for reflector in self._reflectors:
            reflector.stop()

    def signal(self) -> None:
        self._event.set()

    def wait(self, timeout: float) -> None:
        """Return at the next change, or at one since the last call, or after ``timeout`` seconds."""
        self._event.wait(timeout)
        self._event.clear()

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        self._event.set()


def read_all(api: KubeApi, resource: Resource) -> list[Obj]:
    """Every object of a resource, page by page."""
    items: list[Obj] = []
    token = ""
    while True:
        page = api.list(resource, limit=500, continue_token=token)
        items += page.items
        token = page.continue_token
        if not token:
            return items
