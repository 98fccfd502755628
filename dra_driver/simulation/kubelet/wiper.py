"""Deletes ResourceSlices of the node, as the kubelet does to keep pods away from drivers that are not there.

All drivers' once at start, one driver's some time after its last plugin went away. On errors again, with doubling
pauses, so that a wipe may come long after a plugin is back; controllers have to live with that (cm/dra/plugin
dra_plugin_manager.go).
"""

from __future__ import annotations

import logging
import threading
import time

from dra_driver.kube.interface import RESOURCE_SLICES, ApiError, KubeApi

logger = logging.getLogger(__name__)

ALL_DRIVERS = ""
_LONGEST_PAUSE = 300.0


class SliceWiper:
    """One thread between start and stop. A stopped wiper can be started again."""

    def __init__(self, api: KubeApi, node_name: str, retry: float) -> None:
        self._api = api
        self._node_name = node_name
        self._retry = retry
        self._changed = threading.Condition()
        self._due: dict[str, tuple[float, float]] = {}  # driver -> (when, pause after a failure)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.wipes: list[str] = []  # drivers whose slices were deleted, "" for all

    def start(self) -> None:
        """Begins with a wipe of all drivers' slices."""
        self._stopping = False
        self._due = {ALL_DRIVERS: (time.monotonic(), self._retry)}
        self._thread = threading.Thread(target=self._run, name=f"kubelet-wiper-{self._node_name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Forgets what was due and joins the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def schedule(self, driver: str, delay: float) -> None:
        """Wipe the driver's slices in ``delay`` seconds, unless cancelled."""
        with self._changed:
            self._due.setdefault(driver, (time.monotonic() + delay, self._retry))
            self._changed.notify_all()

    def cancel(self, driver: str) -> None:
        with self._changed:
            self._due.pop(driver, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                driver = self._next()
                if driver is None:
                    return
                _, pause = self._due.pop(driver)
            if not self._wipe(driver):
                with self._changed:
                    self._due.setdefault(driver, (time.monotonic() + pause, min(pause * 2, _LONGEST_PAUSE)))

    def _next(self) -> str | None:
        while not self._stopping:
            now = time.monotonic()
            due = min(self._due, key=lambda driver: self._due[driver][0], default=None)
            if due is not None and self._due[due][0] <= now:
                return due
            self._changed.wait(None if due is None else self._due[due][0] - now)
        return None

    def _wipe(self, driver: str) -> bool:
        selector = f"spec.nodeName={self._node_name}"
        if driver != ALL_DRIVERS:
            selector += f",spec.driver={driver}"
        try:
            self._api.delete_collection(RESOURCE_SLICES, field_selector=selector)
        except ApiError as error:
            logger.info("deleting ResourceSlices failed, will retry: %s", error, extra={"selector": selector})
            return False
        self.wipes.append(driver)
        logger.info("deleted ResourceSlices", extra={"selector": selector})
        return True
