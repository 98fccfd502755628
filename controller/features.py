"""Which fields of a ResourceSlice this API server holds, found out by asking it, not from its version.

Only pools with counters or shares need to know before they are written: the one-slice form (counters beside devices) is
refused by 1.35 and later, and a server whose feature gate is off drops the counters, which would make overlapping
devices look independent, or the shares, which would make a device for many look like one for a single claim. A dry-run
create tells each without a trace. Other fields are checked in the echo of real writes. What was learned holds for the
life of the process; a restart asks again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import replace

from api.claim_config import SharingStrategy
from dra_driver.devices.model import AllocatableDevice, CounterConsumption, CounterSet, DeviceKind, DeviceSet
from dra_driver.devices.shares import shared
from dra_driver.devices.sharing import Replicas
from dra_driver.kube.interface import RESOURCE_SLICES, Invalid, KubeApi
from dra_driver.quantity import Quantity
from dra_driver.slices.cutting import PoolOwner, SliceSpec
from dra_driver.slices.diff import dropped_fields
from dra_driver.slices.encode import encode_slice
from dra_driver.slices.features import ApiFeatures

logger = logging.getLogger(__name__)


class ServerFeatures:
    """Shared by all workers; thread-safe."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._features = ApiFeatures()
        self._counters_probed = False
        self._shares_probed = False

    @property
    def current(self) -> ApiFeatures:
        return self._features

    def for_devices(self, device_set: DeviceSet, owner: PoolOwner) -> ApiFeatures:
        """The features, found out as far as ``device_set`` needs them. Raises ApiError when that fails."""
        with self._lock:
            if device_set.counter_sets and not self._counters_probed:
                self._probe_counters(owner)
            shared = any(device.allow_multiple_allocations for device in device_set.devices)
            if shared and not self._shares_probed:
                self._probe_shares(owner)
        return self._features

    def learn_dropped(self, paths: Iterable[str]) -> bool:
        """The server dropped these fields from a write; True when that was news."""
        with self._lock:
            learned = self._features.without(paths)
            news = learned != self._features
            self._features = learned
        if news:
            logger.warning("the API server drops fields of ResourceSlices: %s", ", ".join(paths))
        return news

    def _probe_counters(self, owner: PoolOwner) -> None:
        try:
            dropped = self._dropped(_one_slice_form(), owner)
        except Invalid as error:
            logger.info("the API server keeps counters in slices of their own: %s", error)
        else:
            if dropped:
                self._features = self._features.without(dropped)
                logger.warning("the API server has no partitionable devices, it drops %s", ", ".join(dropped))
            else:
                self._features = replace(self._features, combined_counters=True)
                logger.info("the API server keeps counters beside their devices")
        self._counters_probed = True

    def _probe_shares(self, owner: PoolOwner) -> None:
        if dropped := self._dropped(_shared_form(), owner):
            self._features = self._features.without(dropped)
            logger.warning("the API server has no consumable capacity, it drops %s", ", ".join(dropped))
        self._shares_probed = True

    def _dropped(self, form: SliceSpec, owner: PoolOwner) -> tuple[str, ...]:
        """The fields of ``form`` that the server would not keep. Raises ApiError."""
        sent = encode_slice(form, owner, generation=1, count=1)
        return dropped_fields(sent, self._api.create(RESOURCE_SLICES, sent, dry_run=True))


def _one_slice_form() -> SliceSpec:
    counters = {"probe": Quantity.of(1)}
    device = replace(_device(), consumes=(CounterConsumption("probe", counters),))
    return SliceSpec(0, (device,), (CounterSet("probe", counters),))


def _shared_form() -> SliceSpec:
    return SliceSpec(0, (shared(_device(), Replicas(SharingStrategy.TIME_SLICING, 2)),))


def _device() -> AllocatableDevice:
    return AllocatableDevice(name="probe", kind=DeviceKind.GPU, gpu_uuid="", attributes={}, capacity={})
