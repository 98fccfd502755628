"""Measures what of a device's memory no fraction can have, before the first one is offered.

That is all but what is free while nobody uses the device; where MPS fences, a server of it runs meanwhile, so that its
memory counts too. A device that is in use is measured when it is not any more; until then it is offered as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from dra_driver.devices.sharing import Fractions, SharingPolicy
from dra_driver.errors import DriverError, StateError
from dra_driver.hardware.model import Machine
from dra_driver.observability.listeners import Listeners
from dra_driver.observability.loops import Loop
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.kinds.fence.facts import Divisible, FoundFences, divisible, with_fences, with_unfenced

logger = logging.getLogger(__name__)

_LIMIT_SECONDS = 120.0  # a start of MPS on a GPU that hangs
_AGAIN_SECONDS = 5.0  # while a device is in use
_LAYOUTS_SECONDS = 0.5  # while GPUs are being cut


class Readings(Protocol):
    """What is needed of the hardware watch (``kubelet_plugin.hardware.watch.HardwareWatch``)."""

    @property
    def state(self) -> HardwareState: ...
    def on_reading(self, listener: Callable[[], None]) -> None: ...


class HardwareSource(Protocol):
    @property
    def state(self) -> HardwareState: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class Memory(Protocol):
    """``dra_driver.hardware.nvml.DeviceMemory``. Methods raise ``HardwareError``."""

    def free(self, uuid: str) -> int: ...
    def is_idle(self, uuid: str) -> bool: ...


class Claims(Protocol):
    """``kubelet_plugin.prepare.engine.PrepareEngine``. Both raise ``StateError``."""

    def try_gpu(self, gpu_uuid: str) -> AbstractContextManager[bool]: ...
    def entries(self) -> Mapping[str, ClaimEntry]: ...


class Serving(Protocol):
    """``kinds.fence.serving.MpsServing``. Both raise ``HardwareError``."""

    def __call__(self, device: Divisible, /) -> AbstractContextManager[None]:
        """An MPS server on the device meanwhile, where the node has MPS."""
        ...

    def tidy(self) -> None:
        """What a killed plugin has left of that is stopped."""
        ...


class FencedHardware:
    """Thread ``fractions`` between start and stop, and an ``inventory.writer.HardwareSource``: ``hardware`` with what
    was found. Both do nothing while no rule asks for fractions."""

    def __init__(
        self,
        hardware: HardwareSource,
        readings: Readings,
        found: FoundFences,
        policy: NodePolicy,
        claims: Claims,
        memory: Memory,
        serving: Serving,
        unfenced: Callable[[], Collection[str]] = tuple,
        layouts_pending: Callable[[], bool] = bool,
    ) -> None:
        """``unfenced``: devices on which a fence has gone; may raise ``StateError``. ``layouts_pending``: whether GPUs
        are being cut by MIG layouts, so that nobody knows yet which are there as a whole."""
        self._hardware = hardware
        self._readings = readings
        self._found = found
        self._policy = policy
        self._claims = claims
        self._memory = memory
        self._serving = serving
        self._tidied = False
        self._waiting: dict[str, str] = {}
        self._without_fence = unfenced
        self._layouts_pending = layouts_pending
        self.loop = Loop(
            "fractions", self._round, limit=_LIMIT_SECONDS, doing="measuring of memory", expected=(DriverError, OSError)
        )
        self._changed: Listeners[[]] = Listeners("what is found for fractions changed", self.loop.count_error)
        hardware.on_change(self._changed.tell)
        readings.on_reading(self._was_read)

    @property
    def state(self) -> HardwareState:
        state = self._hardware.state
        if state.machine is None:
            return state
        told = with_fences(state.machine, self._found, self._wanted(state.machine))
        return replace(state, machine=with_unfenced(told, self._unfenced()))

    def on_change(self, listener: Callable[[], None]) -> None:
        self._changed.add(listener)

    def look_again(self) -> None:
        """Fences may have gone. Returns at once."""
        self._changed.tell()

    def start(self) -> None:
        self._found.load()
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        if not self.loop.stop(timeout):
            logger.warning("memory is still being measured %.0f s after stop", timeout)

    def _wanted(self, machine: Machine) -> tuple[Divisible, ...]:
        policy, node = self._policy.devices.sharing, self._policy.node
        return tuple(each for each in divisible(machine) if isinstance(_offered(policy, node, each), Fractions))

    def _unfenced(self) -> Collection[str]:
        try:
            return self._without_fence()
        except StateError as error:
            logger.warning("cannot tell whose fences have gone: %s", error)
            return ()

    def _was_read(self) -> None:
        machine = self._readings.state.machine
        if machine is not None:
            self._found.see(machine)
            self.loop.wake()

    def _round(self) -> float | None:
        if not self._tidied:
            self._serving.tidy()
            self._tidied = True
        machine = self._readings.state.machine
        if machine is None or not (wanted := self._wanted(machine)):
            return None
        if self._layouts_pending():
            return _LAYOUTS_SECONDS
        self._found.look()
        self._found.see(machine)
        unmeasured = {each.uuid for each in self._found.unmeasured(machine)}
        open_ones = [each for each in wanted if each.uuid in unmeasured and each.is_there]
        waiting, errors = dict[str, str](), list[str]()
        for device in open_ones:
            self.loop.beat()
            try:
                if reason := self._measure(machine, device):
                    waiting[device.name] = reason
            except (DriverError, OSError) as error:  # it is told below, when the others had their turn
                errors.append(f"{device.name}: {error}")
        self._tell_of(waiting)
        self._changed.tell()  # also where the backends are others now; the inventory's writer compares
        if errors:
            raise DriverError("; ".join(errors))
        return _AGAIN_SECONDS if waiting else None

    def _measure(self, machine: Machine, device: Divisible) -> str:
        """Why it cannot be now; empty: it is. Raises DriverError, OSError."""
        with self._claims.try_gpu(device.gpu.uuid) as held:
            if not held:
                return "a claim on it is being prepared or unprepared"
            if self._is_held(device):
                return "a claim holds it"
            if not self._memory.is_idle(device.uuid):
                return "a process uses it"
            with self._serving(device):
                reserve = max(0, device.memory - self._memory.free(device.uuid))
        self._found.measured(machine, device, reserve)
        logger.info("%s: driver and MPS keep %d MiB of %s", device.name, reserve >> 20, device.uuid)
        return ""

    def _tell_of(self, waiting: dict[str, str]) -> None:
        """Once, and not every few seconds."""
        for name, reason in waiting.items():
            if self._waiting.get(name) != reason:
                logger.info("%s is not offered in fractions before its memory is measured: %s", name, reason)
        self._waiting = waiting

    def _is_held(self, device: Divisible) -> bool:
        return any(
            held.gpu_uuid == device.gpu.uuid and not held.admin_access
            for entry in self._claims.entries().values()
            for held in entry.devices
        )


def _offered(policy: SharingPolicy, node: str, device: Divisible) -> object:
    if device.profile is None:
        return policy.for_gpu(node, device.gpu)
    return policy.for_mig(node, device.gpu, device.profile)
