"""What was found on the node for fractions: what can fence them, and what of each device's memory no share can have.

Reserves are measured once for a device and driver version, and kept in a file of the plugin's, so that a restart
changes nothing that is published. A file that cannot be read is measured anew.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from api.fractions import SharingBackend
from dra_driver.devices.mig_devices import existing_name, existing_profile
from dra_driver.devices.naming import gpu_name
from dra_driver.files import Durability, write_atomically
from dra_driver.hardware.model import Gpu, Machine, Reserve
from kubelet_plugin.kinds.fractions import NodeFences

logger = logging.getLogger(__name__)

FILE: Final = "fractions.json"

BackendCheck = Callable[[], bool]
"""Whether the node has a backend now; cheap, and never waits."""


@dataclass(frozen=True, slots=True)
class Divisible:
    """A device that may be offered in fractions. ``memory`` in bytes, as it would be published."""

    name: str
    uuid: str
    gpu: Gpu
    profile: str | None  # of a MIG device
    memory: int

    @property
    def is_there(self) -> bool:
        """Whether it can be used as it is: a GPU in MIG mode cannot, as a whole."""
        return self.profile is not None or self.gpu.mig is None or not self.gpu.mig.enabled


class FoundFences(NodeFences):
    """A ``kinds.fractions.NodeFences``. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the plugin's own."""
        self._file = folder / FILE
        self._checks: dict[SharingBackend, BackendCheck] = {}
        self._lock = threading.Lock()
        self._driver = ""
        self._by_uuid: dict[str, int] = {}
        self._by_name: dict[str, int] = {}

    def check(self, backend: SharingBackend, is_there: BackendCheck) -> None:
        """How it is found whether the node has ``backend``; one that nobody looks for is not there."""
        self._checks[backend] = is_there

    def backends(self) -> tuple[SharingBackend, ...]:
        return tuple(each for each in SharingBackend if each in self._checks and self._checks[each]())

    def reserve(self, device: str) -> int | None:
        with self._lock:
            return self._by_name.get(device)

    def load(self) -> None:
        """What an earlier process has measured."""
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
            driver, reserves = _parsed(document)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is of no use, memory is measured anew: %r", self._file, error)
            return
        with self._lock:
            self._driver, self._by_uuid = driver, reserves

    def see(self, machine: Machine) -> None:
        """Which devices there are now. What was measured with another driver is nothing any more."""
        with self._lock:
            if machine.driver_version != self._driver:
                self._driver, self._by_uuid = machine.driver_version, {}
            found = ((each.name, self._by_uuid.get(each.uuid)) for each in divisible(machine))
            self._by_name = {name: reserve for name, reserve in found if reserve is not None}

    def unmeasured(self, machine: Machine) -> tuple[Divisible, ...]:
        with self._lock:
            return tuple(each for each in divisible(machine) if each.uuid not in self._by_uuid)

    def measured(self, machine: Machine, device: Divisible, reserve: int) -> None:
        """Raises OSError where it cannot be kept."""
        with self._lock:
            known = {each.uuid for each in divisible(machine)}
            reserves = {uuid: held for uuid, held in self._by_uuid.items() if uuid in known} | {device.uuid: reserve}
            document = {"driverVersion": machine.driver_version, "reserves": dict(sorted(reserves.items()))}
            write_atomically(self._file, json.dumps(document).encode(), mode=0o600, durability=Durability.WHOLE)
            self._by_uuid = reserves
            self._by_name[device.name] = reserve


def divisible(machine: Machine) -> Iterator[Divisible]:
    """Whole GPUs with memory of their own, and MIG devices that exist."""
    for gpu in machine.gpus:
        if gpu.memory_bytes is not None:
            yield Divisible(gpu_name(gpu.minor), gpu.uuid, gpu, None, gpu.memory_bytes)
        for instance in gpu.mig.instances if gpu.mig else ():
            profile = gpu.mig.profile(instance.profile_id) if gpu.mig else None
            if profile is not None:
                for compute in instance.compute_instances:
                    name, of = existing_name(gpu, profile, instance, compute), existing_profile(profile, compute)
                    yield Divisible(name, compute.uuid, gpu, of, profile.memory_mib << 20)


def with_fences(machine: Machine, fences: NodeFences, wanted: Iterable[Divisible]) -> Machine:
    """``machine`` as the controller is told of it, with what was found for devices that are ``wanted`` in fractions; as
    it is where none is. Pure."""
    reserves: dict[str, list[Reserve]] = {}
    is_any = False
    for device in wanted:
        is_any = True
        reserve = fences.reserve(device.name)
        if reserve is not None:
            reserves.setdefault(device.gpu.uuid, []).append(Reserve(device.name, reserve))
    if not is_any:
        return machine
    gpus = tuple(replace(gpu, reserves=tuple(reserves.get(gpu.uuid, ()))) for gpu in machine.gpus)
    return replace(machine, gpus=gpus, fences=fences.backends())


def _parsed(document: Any) -> tuple[str, dict[str, int]]:
    """Raises KeyError, TypeError, ValueError, AttributeError for what :meth:`FoundFences.measured` did not write."""
    reserves = {str(uuid): int(held) for uuid, held in document["reserves"].items()}
    if min(reserves.values(), default=0) < 0:
        raise ValueError("a reserve is negative")
    return str(document["driverVersion"]), reserves
