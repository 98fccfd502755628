"""The hardware as the controller is told of it, with the devices whose MPS daemon is dead or stuck.

Sits between the judged hardware and the inventory writer. It has no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from dra_driver.devices.naming import gpu_name, mig_name, partial_profile
from dra_driver.hardware.model import Gpu, Machine, UnhealthyMps
from dra_driver.observability.listeners import Listeners
from dra_driver.text import shortened
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.kinds.mps.states import GroupStates, Unhealthy, describe


class HardwareSource(Protocol):
    @property
    def state(self) -> HardwareState: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class ToldHardware:
    """An ``inventory.writer.HardwareSource``."""

    def __init__(self, hardware: HardwareSource, states: GroupStates) -> None:
        self._hardware = hardware
        self._states = states
        self._changed: Listeners[[]] = Listeners("the hardware or its MPS groups changed")
        hardware.on_change(self._changed.tell)
        states.on_change(lambda _before, _now: self._changed.tell())

    @property
    def state(self) -> HardwareState:
        state, unhealthy = self._hardware.state, self._states.unhealthy
        if state.machine is None or not unhealthy:
            return state
        return replace(state, machine=with_unhealthy(state.machine, unhealthy))

    def on_change(self, listener: Callable[[], None]) -> None:
        self._changed.add(listener)


def with_unhealthy(machine: Machine, unhealthy: Unhealthy) -> Machine:
    """``machine``, with what is wrong with its devices. Pure."""
    messages = {uuid: shortened(describe(each)) for each in unhealthy.values() for uuid in each.group.devices}
    return replace(machine, gpus=tuple(_with(gpu, messages) for gpu in machine.gpus))


def _with(gpu: Gpu, messages: Mapping[str, str]) -> Gpu:
    found = tuple(UnhealthyMps(device, messages[uuid]) for uuid, device in _devices(gpu) if uuid in messages)
    return replace(gpu, mps_unhealthy=found) if found else gpu


def _devices(gpu: Gpu) -> Iterator[tuple[str, str]]:
    """UUID and published name of all that is on the GPU now."""
    yield gpu.uuid, gpu_name(gpu.minor)
    for instance in gpu.mig.instances if gpu.mig else ():
        profile = gpu.mig.profile(instance.profile_id) if gpu.mig else None
        for compute in instance.compute_instances if profile else ():
            whole = profile is None or compute.slices == profile.slice_count
            name = instance.profile_name if whole else partial_profile(instance.profile_name, compute.slices)
            start = None if whole else compute.start
            yield compute.uuid, mig_name(gpu.minor, name, instance.profile_id, instance.placement.start, start)
