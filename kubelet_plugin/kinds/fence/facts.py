"""What was found on the node for fractions: what can fence them, and what of each device's memory no share can have.

Reserves are measured once for a device and driver version, and kept in a file of the plugin's, so that a restart
changes nothing that is published. A file that cannot be read is measured anew.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from api.fractions import SharingBackend
from dra_driver.devices.mig_devices import existing_name, existing_profile
from dra_driver.devices.naming import gpu_name, minor_of
from dra_driver.files import Durability, write_atomically
from dra_driver.hardware.model import Gpu, Machine, Reserve
from kubelet_plugin.kinds.fractions import NodeFences

logger = logging.getLogger(__name__)

FILE: Final = "fractions.json"

BackendCheck = Callable[[], bool | None]
"""Whether the node has a backend; None where that cannot be told right now. It may wait."""


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


@dataclass(frozen=True, slots=True)
class _Kept:
    """``reserves``: in bytes, by UUID."""

    driver: str = ""
    backends: tuple[SharingBackend, ...] = ()
    reserves: Mapping[str, int] = field(default_factory=dict, hash=False)


class FoundFences(NodeFences):
    """A ``kinds.fractions.NodeFences``. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the plugin's own."""
        self._file = folder / FILE
        self._checks: dict[SharingBackend, BackendCheck] = {}
        self._lock = threading.Lock()
        self._kept = _Kept()
        self._by_name: Mapping[str, int] = {}

    def check(self, backend: SharingBackend, is_there: BackendCheck) -> None:
        """How it is found whether the node has ``backend``; one that nobody looks for is not there."""
        self._checks[backend] = is_there

    def backends(self) -> tuple[SharingBackend, ...]:
        return self._kept.backends

    def reserve(self, device: str) -> int | None:
        return self._by_name.get(device)

    def load(self) -> None:
        """What an earlier process has found."""
        try:
            self._kept = _parsed(json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is of no use, memory is measured anew: %r", self._file, error)

    def look(self) -> bool:
        """Look for all backends; whether there are others than before. What cannot be told now stays as it was. May
        wait. Raises OSError where that cannot be kept."""
        before = self._kept.backends
        answers = {backend: self._checks[backend]() if backend in self._checks else False for backend in SharingBackend}
        now = tuple(each for each, there in answers.items() if (each in before if there is None else there))
        if now == before:
            return False
        with self._lock:
            self._keep(replace(self._kept, backends=now))
        logger.info("fractions can be fenced by %s", ", ".join(now) or "nothing")
        return True

    def see(self, machine: Machine) -> None:
        """Which devices there are now. What was measured with another driver is nothing any more."""
        with self._lock:
            if machine.driver_version != self._kept.driver:
                self._kept = replace(self._kept, driver=machine.driver_version, reserves={})
            found = ((each.name, self._kept.reserves.get(each.uuid)) for each in divisible(machine))
            self._by_name = {name: reserve for name, reserve in found if reserve is not None}

    def unmeasured(self, machine: Machine) -> tuple[Divisible, ...]:
        return tuple(each for each in divisible(machine) if each.uuid not in self._kept.reserves)

    def measured(self, machine: Machine, device: Divisible, reserve: int) -> None:
        """Raises OSError where it cannot be kept."""
        with self._lock:
            known = {each.uuid for each in divisible(machine)}
            reserves = {uuid: held for uuid, held in self._kept.reserves.items() if uuid in known}
            self._keep(replace(self._kept, reserves={**reserves, device.uuid: reserve}))
            self._by_name = {**self._by_name, device.name: reserve}

    def _keep(self, now: _Kept) -> None:
        document = {
            "driverVersion": now.driver,
            "backends": [each.value for each in now.backends],
            "reserves": dict(sorted(now.reserves.items())),
        }
        write_atomically(self._file, json.dumps(document).encode(), mode=0o600, durability=Durability.WHOLE)
        self._kept = now


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


def with_unfenced(machine: Machine, names: Collection[str]) -> Machine:
    """``machine``, with the devices of ``names`` as those on which a fence has gone. Pure."""
    if not names:
        return machine

    def on(gpu: Gpu) -> tuple[str, ...]:
        return tuple(sorted(name for name in names if minor_of(name) == gpu.minor))

    return replace(machine, gpus=tuple(replace(gpu, unfenced=on(gpu)) for gpu in machine.gpus))


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


def _parsed(document: Any) -> _Kept:
    """Raises KeyError, TypeError, ValueError, AttributeError for what :class:`FoundFences` did not write."""
    reserves = {str(uuid): int(held) for uuid, held in document["reserves"].items()}
    if min(reserves.values(), default=0) < 0:
        raise ValueError("a reserve is negative")
    backends = tuple(each for each in SharingBackend if each.value in document["backends"])
    return _Kept(str(document["driverVersion"]), backends, reserves)
