"""The hardware as the controller is told of it, with the devices whose MPS daemon is dead or stuck.

Sits between the judged hardware and the inventory writer. It has no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from dra_driver.devices.mig_devices import existing_name
from dra_driver.devices.naming import gpu_name
from dra_driver.hardware.model import Gpu, Machine, UnhealthyMps
from dra_driver.observability.listeners import Listeners
from dra_driver.text import shortened
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.kinds.mps.states import GroupStates, Unhealthy, describe


class HardwareSource(Protocol):
    @property
    def state(self) -> HardwareState: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class Readings(Protocol):
    """What is needed of the hardware watch (``kubelet_plugin.hardware.watch.HardwareWatch``)."""

    @property
    def state(self) -> HardwareState: ...
    def on_reading(self, listener: Callable[[], None]) -> None: ...


class ToldHardware:
    """An ``inventory.writer.HardwareSource``. ``hardware``: as it would be told without. ``readings``: with the MIG
    devices of claims, of which the controller is not told."""

    def __init__(self, hardware: HardwareSource, readings: Readings, states: GroupStates) -> None:
        self._hardware = hardware
        self._readings = readings
        self._states = states
        self._changed: Listeners[[]] = Listeners("the hardware or its MPS groups changed")
        hardware.on_change(self._changed.tell)
        readings.on_reading(self._read)
        states.on_change(lambda _before, _now: self._changed.tell())

    @property
    def state(self) -> HardwareState:
        state, read, unhealthy = self._hardware.state, self._readings.state.machine, self._states.unhealthy
        if state.machine is None or read is None or not unhealthy:
            return state
        return replace(state, machine=with_unhealthy(state.machine, read, unhealthy))

    def on_change(self, listener: Callable[[], None]) -> None:
        self._changed.add(listener)

    def _read(self) -> None:
        """A MIG device may have been made since the reading before."""
        if self._states.unhealthy:
            self._changed.tell()


def with_unhealthy(machine: Machine, read: Machine, unhealthy: Unhealthy) -> Machine:
    """``machine``, with what is wrong with its devices, which are found in ``read``. Pure."""
    messages = {uuid: shortened(describe(each)) for each in unhealthy.values() for uuid in each.group.devices}
    found = {gpu.uuid: tuple(_unhealthy(gpu, messages)) for gpu in read.gpus}
    return replace(machine, gpus=tuple(replace(gpu, mps_unhealthy=found.get(gpu.uuid, ())) for gpu in machine.gpus))


def _unhealthy(gpu: Gpu, messages: Mapping[str, str]) -> Iterator[UnhealthyMps]:
    return (UnhealthyMps(device, messages[uuid]) for uuid, device in _devices(gpu) if uuid in messages)


def _devices(gpu: Gpu) -> Iterator[tuple[str, str]]:
    """UUID and published name of all that is on the GPU now."""
    yield gpu.uuid, gpu_name(gpu.minor)
    for instance in gpu.mig.instances if gpu.mig else ():
        profile = gpu.mig.profile(instance.profile_id) if gpu.mig else None
        if profile is not None:
            for compute in instance.compute_instances:
                yield compute.uuid, existing_name(gpu, profile, instance, compute)
