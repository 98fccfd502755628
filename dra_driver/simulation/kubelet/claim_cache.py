"""What the kubelet remembers about claims on its node, and the checkpoint by which it survives a restart.

As in the real one (cm/dra/claiminfo.go, state/), a restart keeps pods, devices and CDI names, but not the knowledge
that a claim is prepared: the next pod that uses it prepares it again.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dra_driver.files import write_atomically
from dra_driver.simulation.kubelet.plugin import Device

STATE_FILE = "dra_manager_state"


@dataclass(slots=True)
class ClaimInfo:
    """One claim that a pod of this node uses. Guarded by the cache's lock."""

    namespace: str
    name: str
    uid: str
    drivers: tuple[str, ...]
    pod_uids: set[str] = field(default_factory=set)
    devices: dict[str, tuple[Device, ...]] = field(default_factory=dict)  # by driver
    prepared: bool = False

    def cdi_ids(self, request: str) -> tuple[str, ...]:
        """CDI names for one request, or for all when ``request`` is empty. A device without requests serves all."""
        return tuple(cdi_id for _driver, device in self.devices_of(request) for cdi_id in device.cdi_ids)

    def devices_of(self, request: str) -> tuple[tuple[str, Device], ...]:
        """(driver, device) for one request, or for all when ``request`` is empty."""
        return tuple(
            (driver, device)
            for driver, devices in self.devices.items()
            for device in devices
            if not request or not device.requests or request in device.requests
        )


class ClaimCache:
    """Claims by (namespace, name). Hold :attr:`lock` while reading or changing an entry."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE_FILE
        self.lock = threading.RLock()
        self._claims: dict[tuple[str, str], ClaimInfo] = {}

    def load(self) -> None:
        """Read the checkpoint; without one the cache is empty."""
        with self.lock:
            try:
                state = json.loads(self._path.read_text())
            except FileNotFoundError:
                state = {"claims": []}
            self._claims = {(entry["namespace"], entry["name"]): _from_json(entry) for entry in state["claims"]}

    def save(self) -> None:
        with self.lock:
            state = {"claims": [_to_json(info) for info in self._claims.values()]}
            write_atomically(self._path, json.dumps(state).encode(), mode=0o600)

    def get(self, namespace: str, name: str) -> ClaimInfo | None:
        return self._claims.get((namespace, name))

    def add(self, info: ClaimInfo) -> None:
        self._claims[(info.namespace, info.name)] = info

    def remove(self, info: ClaimInfo) -> None:
        self._claims.pop((info.namespace, info.name), None)

    def of_pod(self, pod_uid: str) -> tuple[ClaimInfo, ...]:
        with self.lock:
            return tuple(info for info in self._claims.values() if pod_uid in info.pod_uids)

    def pod_uids(self, driver: str | None = None) -> set[str]:
        """Pods that hold any claim, or one with devices of ``driver``."""
        with self.lock:
            infos = [info for info in self._claims.values() if driver is None or driver in info.drivers]
            return {uid for info in infos for uid in info.pod_uids}


def _to_json(info: ClaimInfo) -> dict[str, Any]:
    return {
        "namespace": info.namespace,
        "name": info.name,
        "uid": info.uid,
        "podUIDs": sorted(info.pod_uids),
        "drivers": {
            driver: [
                {
                    "pool": device.pool,
                    "device": device.device,
                    "requests": list(device.requests),
                    "cdiIDs": list(device.cdi_ids),
                    "shareID": device.share_id,
                }
                for device in info.devices.get(driver, ())
            ]
            for driver in info.drivers
        },
    }


def _from_json(entry: dict[str, Any]) -> ClaimInfo:
    devices = {
        driver: tuple(
            Device(
                pool=device["pool"],
                device=device["device"],
                requests=tuple(device["requests"]),
                cdi_ids=tuple(device["cdiIDs"]),
                share_id=device["shareID"],
            )
            for device in devices
        )
        for driver, devices in entry["drivers"].items()
    }
    return ClaimInfo(
        namespace=entry["namespace"],
        name=entry["name"],
        uid=entry["uid"],
        drivers=tuple(devices),
        pod_uids=set(entry["podUIDs"]),
        devices=devices,
    )
