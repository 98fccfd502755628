"""What the state file says of GPUs and MIG devices, for programs that do without the models of ``state``.

It reads the JSON that ``state`` describes, and changes one thing in it: the processes that use a device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.simulation.hardware import cgroup_limits, state_store
from dra_driver.simulation.hardware.cgroup_limits import Limit
from dra_driver.simulation.hardware.mps import presence

EXCLUSIVE_PROCESS = 3  # NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
PROHIBITED = 2  # NVML_COMPUTEMODE_PROHIBITED
_VOLTA = (7, 0)


@dataclass(frozen=True, slots=True)
class User:
    """A process that uses a device; ``mps_server``: through which MPS server, or None.

    ``allocated``: bytes of the device, charged to ``cgroup``, as far as that can be told. ``holder``: who answers for
    it (``presence``): its MPS server, or itself.
    """

    pid: int
    mps_server: int | None
    allocated: int = 0
    cgroup: str | None = None
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A whole GPU that MIG does not divide, or a MIG device. ``memory`` in bytes, None: shared with the host's.

    ``limits``: of its memory by cgroup, which a MIG device has none of.
    """

    uuid: str
    gpu: int
    memory: int | None
    compute_mode: int
    lost: bool
    most_mps_clients: int
    users: tuple[User, ...]
    limits: tuple[Limit, ...] = ()

    def left(self, cgroup: str | None) -> int | None:
        """What a process in ``cgroup`` may still allocate because of limits; None: none holds."""
        return cgroup_limits.left(self.limits, self.users, cgroup)

    def reported(self, cgroup: str | None) -> int | None:
        """The memory that CUDA reports in ``cgroup``."""
        limit = cgroup_limits.reported(self.limits, cgroup)
        return self.memory if limit is None else limit


class State:
    """The state file, parsed again when it was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[tuple[int, int, int], dict[str, Any]] | None = None

    def read(self) -> dict[str, Any]:
        found = os.stat(self.path)
        version = (found.st_mtime_ns, found.st_ino, found.st_size)
        if self._known is None or self._known[0] != version:
            self._known = (version, json.loads(self.path.read_bytes()))
        return self._known[1]

    def devices(self) -> tuple[Device, ...]:
        """In CUDA's order: GPU after GPU, and MIG devices in the place of a GPU that is divided."""
        state = self.read()
        return tuple(_devices(_living(state, self._ended(state))))

    def driver_version(self) -> str | None:
        """Of the driver's files on the node; None when there are none (``state.SimulatedState.library_version``)."""
        state = self.read()
        version = state["driver"].get("library") if "driver" in state else state["machine"]["hardware"]["driverVersion"]
        return None if version is None else str(version)

    def faults(self, gpus: frozenset[int]) -> tuple[dict[str, Any], ...]:
        """The faults (``state.MpsFault``) of a daemon that has ``gpus``."""
        faults = self.read().get("faults", {}).get("mps", ())
        return tuple(each for each in faults if each.get("gpu") is None or each["gpu"] in gpus)

    def change_users(self, uuids: frozenset[str], change: Callable[[tuple[User, ...]], tuple[User, ...]]) -> None:
        """Have other processes use the devices of ``uuids``; ``change`` may refuse by raising. Alone, and at once."""
        with self._changing() as state:
            for gpu in state["gpus"]:
                for uuid in _uuids(gpu) & uuids:
                    others = [each for each in gpu["clients"] if each["uuid"] != uuid]
                    gpu["clients"] = others + [_client(uuid, user) for user in change(_users(gpu, uuid))]

    def enter(self, uuids: frozenset[str], user: User, admit: Callable[[Device], None]) -> None:
        """``user`` uses the devices of ``uuids``, all or none: ``admit`` may refuse each, as it is then, by raising."""
        with self._changing() as state:
            for device in _devices(state):
                if device.uuid in uuids:
                    admit(device)
            for gpu in state["gpus"]:
                gpu["clients"] += [_client(uuid, user) for uuid in sorted(_uuids(gpu) & uuids)]

    def leave(self, holder: str) -> None:
        """``holder`` ends, and with it what it and the processes that it answers for have of any device."""
        if holder in _holders(self.read()):
            with self._changing() as state:
                state.update(_living(state, frozenset((holder,))))

    def tidy(self) -> None:
        """What processes that were killed have left does not count; it goes out of the file, too."""
        if self._ended(self.read()):
            with self._changing():
                pass

    def cgroup_of(self, pid: int) -> str | None:
        """The cgroup, in the node's hierarchy, of a process of this machine; None where it cannot be told."""
        said = self.read().get("cgroups")
        hierarchy = CgroupHierarchy(Path(said["root"]), said["standsIn"]) if said else CgroupHierarchy()
        try:
            return str(hierarchy.of_process(Path(f"/proc/{pid}/cgroup").read_text()))
        except (OSError, HardwareError):
            return None

    def _ended(self, state: dict[str, Any]) -> frozenset[str]:
        return presence.ended(self.path, _holders(state))

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The state, to be changed; not as it is remembered, since a change may be refused half-way by raising."""
        with state_store.exclusively(self.path):
            found = json.loads(self.path.read_bytes())
            ended = self._ended(found)
            state = _living(found, ended)
            yield state
            state_store.put(self.path, json.dumps(state, separators=(",", ":")).encode())
        presence.forget(self.path, ended)


def visible(devices: tuple[Device, ...], names: str | None) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """The devices that ``CUDA_VISIBLE_DEVICES`` names (all without it), and the names of none.

    By ordinal, or by UUID or the beginning of one.
    """
    if names is None:
        return devices, ()
    found: list[Device] = []
    unknown: list[str] = []
    for name in (each.strip() for each in names.split(",")):
        if name.isascii() and name.isdigit() and int(name) < len(devices):
            found.append(devices[int(name)])
            continue
        matching = [each for each in devices if name.startswith(("GPU-", "MIG-")) and each.uuid.startswith(name)]
        if len(matching) == 1:
            found.append(matching[0])
        else:
            unknown.append(name)
    return tuple(found), tuple(unknown)


def _devices(state: dict[str, Any]) -> Iterator[Device]:
    hardware = state["machine"]["hardware"]
    lost = state.get("faults", {}).get("lostGpus", ())
    for index, gpu in enumerate(state["gpus"]):
        product = hardware["products"][hardware["gpus"][index].get("product", 0)]
        capability = tuple(int(each) for each in product["cudaComputeCapability"].split("."))

        common = _Common(
            gpu=index,
            compute_mode=gpu["computeMode"],
            lost=index in lost,
            # nvidia-cuda-mps-control(1): 48 for each device since Volta, 16 before
            most_mps_clients=48 if capability >= _VOLTA else 16,
        )
        if not gpu["migEnabled"]:
            yield replace(common.device(gpu, gpu["uuid"], product.get("memoryBytes")), limits=_limits(gpu))
        profiles = {each["id"]: each["memoryMiB"] for each in product.get("migProfiles") or ()}
        for instance in gpu["instances"]:
            for compute in instance["computeInstances"]:
                yield common.device(gpu, compute["uuid"], profiles[instance["profile"]] << 20)


@dataclass(frozen=True, slots=True)
class _Common:
    """What is the same for all devices of one GPU."""

    gpu: int
    compute_mode: int
    lost: bool
    most_mps_clients: int

    def device(self, gpu: dict[str, Any], uuid: str, memory: int | None) -> Device:
        return Device(uuid, self.gpu, memory, self.compute_mode, self.lost, self.most_mps_clients, _users(gpu, uuid))


def _holders(state: dict[str, Any]) -> set[str]:
    return {each["holder"] for gpu in state["gpus"] for each in gpu["clients"] if "holder" in each}


def _living(state: dict[str, Any], ended: frozenset[str]) -> dict[str, Any]:
    """Without what those that have ended had of devices: the kernel has freed it."""
    gpus = [
        {**gpu, "clients": [each for each in gpu["clients"] if each.get("holder") not in ended]}
        for gpu in state["gpus"]
    ]
    return {**state, "gpus": gpus}


def _uuids(gpu: dict[str, Any]) -> frozenset[str]:
    computes = (compute["uuid"] for instance in gpu["instances"] for compute in instance["computeInstances"])
    return frozenset((gpu["uuid"], *computes))


def _users(gpu: dict[str, Any], uuid: str) -> tuple[User, ...]:
    return tuple(
        User(each["pid"], each.get("mpsServer"), each.get("allocated", 0), each.get("cgroup"), each.get("holder"))
        for each in gpu["clients"]
        if each["uuid"] == uuid
    )


def _limits(gpu: dict[str, Any]) -> tuple[Limit, ...]:
    return tuple(
        Limit(each["cgroup"], each["inode"], each["soft"], each["hard"]) for each in gpu.get("memoryLimits", ())
    )


def _client(uuid: str, user: User) -> dict[str, Any]:
    more = {
        "mpsServer": user.mps_server,
        "allocated": user.allocated,
        "cgroup": user.cgroup,
        "holder": user.holder,
    }
    return {"pid": user.pid, "uuid": uuid, **{name: value for name, value in more.items() if value is not None}}
