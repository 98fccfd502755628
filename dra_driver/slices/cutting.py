"""Cuts a node's devices into ResourceSlices that keep every API limit, the same way every time.

The order of devices is kept: it is the packing policy (``dra_driver.devices.ordering``), and the slices' names carry
an ordered index because the scheduler reads slices by name. Cuts are stable: taints come and go, so a slice is always
cut as if it had some when the server can hold them, and with counters each GPU has slices of its own, so a change of
one GPU touches no other. The exception is asked for: see :class:`Cut`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import TypeVar

from dra_driver.devices.model import AllocatableDevice, CounterSet, DeviceSet
from dra_driver.devices.reordering import by_group
from dra_driver.errors import DriverError
from dra_driver.slices import limits
from dra_driver.slices.fallback import reduce_to
from dra_driver.slices.features import ApiFeatures

_Item = TypeVar("_Item")
_Content = tuple[Sequence[AllocatableDevice], Sequence[CounterSet]]


class PoolDoesNotFit(DriverError):
    """The devices of one GPU do not fit into the form of slice that this API server takes."""

    reason = "PoolDoesNotFit"
    retryable = False


@dataclass(frozen=True, slots=True)
class PoolOwner:
    """The pool of one driver on one node. The pool is named after the node, as NVIDIA's driver does."""

    driver: str
    node_name: str
    node_uid: str

    @property
    def pool(self) -> str:
        return self.node_name


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """One slice of a pool. ``devices`` is empty in a slice of counters only (1.35 and later)."""

    index: int
    devices: tuple[AllocatableDevice, ...] = ()
    counter_sets: tuple[CounterSet, ...] = ()


class Cut(Enum):
    """What shares a slice where counters have slices of their own (1.35 and later)."""

    BY_GPU = "by GPU"  # a change of one GPU touches no other
    BY_PROFILE = "by profile"  # the order of a slice chooses among all GPUs (dra_driver.devices.reordering)


def desired_slices(
    device_set: DeviceSet, owner: PoolOwner, features: ApiFeatures, cut: Cut = Cut.BY_GPU
) -> tuple[SliceSpec, ...]:
    """The slices of a pool, in index order; an empty pool is one empty slice, so that consumers see it is complete.

    Raises PoolDoesNotFit when the one-slice form of 1.34 cannot hold a GPU's devices.
    """
    reduced = reduce_to(device_set, features).device_set
    contents: list[_Content]
    if not reduced.counter_sets:
        contents = [(chunk, ()) for chunk in _chunks(reduced.devices, _slice_size(features))]
    elif features.combined_counters:
        contents = list(_combined(reduced, owner))
    else:
        contents = list(_separate(reduced, cut))
    return tuple(
        SliceSpec(index, tuple(devices), tuple(counter_sets))
        for index, (devices, counter_sets) in enumerate(contents or [((), ())])
    )


def generate_name(index: int, owner: PoolOwner) -> str:
    """``0000a-gpu.nvidia.com-node-1-``: the form of k8s.io/dynamic-resource-allocation/resourceslice since 1.36."""
    return f"{index:05x}-{owner.driver}-{owner.node_name}"[: limits.MAX_GENERATE_NAME_BYTES - 1].rstrip("-.") + "-"


def _separate(device_set: DeviceSet, cut: Cut) -> Iterator[_Content]:
    """Counters first, in slices of their own, then the devices."""
    for sets in _chunks(device_set.counter_sets, limits.MAX_COUNTER_SETS):
        yield (), sets
    devices = device_set.devices
    for together in _per_gpu(devices) if cut is Cut.BY_GPU else _per_profile(devices):
        for chunk in _chunks(together, limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS):
            yield chunk, ()


def _combined(device_set: DeviceSet, owner: PoolOwner) -> Iterator[_Content]:
    """Each GPU's devices beside the counter sets that they draw from; sets that none draws from are left out.

    A counter set cannot be in two slices, so the devices that draw from one must follow each other.
    """
    placed: set[str] = set()
    for devices in _per_gpu(device_set.devices):
        names = {consumption.counter_set for device in devices for consumption in device.consumes}
        sets = [counter_set for counter_set in device_set.counter_sets if counter_set.name in names]
        if not sets:
            yield from ((chunk, ()) for chunk in _chunks(devices, limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS))
            continue
        if twice := placed & names:
            raise PoolDoesNotFit(
                f"pool {owner.pool}: devices that draw from {', '.join(sorted(twice))} are not adjacent"
            )
        placed |= names
        _require("devices", len(devices), limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS, devices[0], owner)
        counters = sum(len(counter_set.counters) for counter_set in sets)
        _require("counters", counters, limits.MAX_COUNTERS_PER_SET, devices[0], owner)
        consumed = sum(len(consumption.counters) for device in devices for consumption in device.consumes)
        _require("consumed counters", consumed, limits.MAX_CONSUMED_COUNTERS_IN_ONE_SLICE_FORM, devices[0], owner)
        yield devices, sets


def _require(what: str, count: int, limit: int, device: AllocatableDevice, owner: PoolOwner) -> None:
    if count > limit:
        raise PoolDoesNotFit(
            f"pool {owner.pool}: GPU {device.gpu_uuid} has {count} {what} and a slice of this API server holds {limit}",
            hint="upgrade to Kubernetes 1.35 or later, or offer fewer MIG profiles or replicas",
        )


def _per_gpu(devices: Iterable[AllocatableDevice]) -> Iterator[Sequence[AllocatableDevice]]:
    for _, group in groupby(devices, key=lambda device: device.board):
        yield tuple(group)


def _per_profile(devices: Iterable[AllocatableDevice]) -> Iterator[Sequence[AllocatableDevice]]:
    """Whole GPUs, then the placements of each profile: whole groups in one slice, as many as it holds."""
    together: list[AllocatableDevice] = []
    for group in by_group(devices):
        if together and len(together) + len(group) > limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS:
            yield together
            together = []
        together += group
    if together:
        yield together


def _slice_size(features: ApiFeatures) -> int:
    return limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS if features.taints else limits.MAX_DEVICES


def _chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
