"""The simulated hardware's state: one JSON file, shared by every process that simulates the same node.

It holds the machine description, what can change at run time (MIG, compute modes) and the faults to play. Writers take
an exclusive flock on ``<file>.lock`` and replace the file whole, so readers never lock and never see half a state; a
process killed with -9 leaves the last whole state. Readers parse again only when the file was replaced.
"""

from __future__ import annotations

import fcntl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from api.base import ApiModel
from dra_driver.errors import HardwareUnavailable
from dra_driver.files import write_atomically
from dra_driver.hardware.simulated.description import (
    GpuDescription,
    MachineDescription,
    ProductDescription,
    ProfileDescription,
    load_machine,
)

# Names of our UUIDs (RFC 9562 version 5); any constant will do, as long as it stays.
_NAMESPACE = uuid.UUID("6f3c7f0e-5f0d-5f6e-9b1a-7d6d4c1f9a10")

COMPUTE_MODE_DEFAULT = 0


class _State(ApiModel):
    model_config = ConfigDict(strict=True)


class InstanceState(_State):
    """A MIG device: a GPU instance with one compute instance."""

    uuid: str
    gpu_instance: int
    compute_instance: int
    profile: int
    start: int


class GpuState(_State):
    """What can change about one GPU, and its identity. ``mig_pending`` is the mode after the next reset."""

    uuid: str
    serial: str
    mig_enabled: bool = False
    mig_pending: bool = False
    instances: tuple[InstanceState, ...] = ()
    compute_mode: int = COMPUTE_MODE_DEFAULT


class CallFault(_State):
    """``function`` answers ``code`` (nvmlReturn_t): for one GPU (NVML index) or all, ``times`` or for ever.

    A function that takes no handle (nvmlDeviceGetHandleByIndex_v2) fails only by a fault without ``gpu``.
    """

    function: str
    code: int
    gpu: int | None = None
    times: int | None = Field(default=None, ge=1)


class Faults(_State):
    """What goes wrong. ``latency`` is seconds per call by function, "*" for every function without its own."""

    library_missing: bool = False
    missing_functions: tuple[str, ...] = ()
    latency: dict[str, float] = Field(default_factory=dict)
    calls: tuple[CallFault, ...] = ()
    lost_gpus: tuple[int, ...] = ()


class SimulatedState(_State):
    """The whole file. ``privileged`` False makes calls that need root answer "no permission"."""

    machine: MachineDescription
    seed: str = ""
    boot_id: str
    privileged: bool = True
    gpus: tuple[GpuState, ...]
    faults: Faults = Faults()

    def description(self, index: int) -> GpuDescription:
        return self.machine.hardware.gpus[index]

    def product(self, index: int) -> ProductDescription:
        return self.machine.hardware.product_of(index)

    def profile(self, index: int, profile_id: int) -> ProfileDescription | None:
        profiles = self.product(index).mig_profiles or ()
        return next((profile for profile in profiles if profile.id == profile_id), None)

    def with_gpu(self, index: int, gpu: GpuState) -> SimulatedState:
        return self.model_copy(update={"gpus": (*self.gpus[:index], gpu, *self.gpus[index + 1 :])})


class StateFile:
    """One process's view of the state file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._state: SimulatedState | None = None

    def read(self) -> SimulatedState:
        """The state now. HardwareUnavailable when the file is not there or not a state."""
        with self._lock:
            try:
                stat = self.path.stat()
                version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                if self._state is None or version != self._version:
                    self._state = SimulatedState.model_validate_json(self.path.read_bytes())
                    self._version = version
            except OSError as error:
                raise HardwareUnavailable(
                    f"cannot read simulated hardware {self.path}: {error.strerror}",
                    hint="create it first, with gpu-dra machine create",
                ) from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the file"
                raise HardwareUnavailable(
                    f"simulated hardware {self.path} is not a valid state: {where}: {first['msg']}",
                    hint="create it again",
                ) from error
            return self._state

    def update(self, change: Callable[[SimulatedState], SimulatedState]) -> SimulatedState:
        """Replace the state with ``change`` of it, alone among all processes. Writes nothing when nothing changes."""
        with self._exclusively():
            before = self.read()
            after = change(before)
            if after != before:
                self.write(after)
            return after

    def create(self, state: SimulatedState) -> tuple[SimulatedState, bool]:
        """Write ``state`` unless there is one, alone among all processes; the one that is there then, and if it is new.

        HardwareUnavailable when there is a file that is no state.
        """
        with self._exclusively():
            if self.path.exists():
                return self.read(), False
            self.write(state)
            return state, True

    def write(self, state: SimulatedState) -> None:
        write_atomically(self.path, state.model_dump_json(by_alias=True, exclude_none=True).encode())

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self.path.with_name(self.path.name + ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def create_state(machine: str | Path | MachineDescription, state_file: Path, *, seed: str = "") -> SimulatedState:
    """Write the initial state of ``machine`` (a recorded name, a file, or a description) to ``state_file``.

    ``seed`` (a node's name, usually) makes UUIDs, serial numbers and the boot id differ between nodes of one machine;
    the same seed gives the same ones. MachineFileError when the machine cannot be read.
    """
    description = machine if isinstance(machine, MachineDescription) else load_machine(machine)
    state = initial_state(description, seed)
    state_file.parent.mkdir(parents=True, exist_ok=True)
    StateFile(state_file).write(state)
    return state


def initial_state(description: MachineDescription, seed: str) -> SimulatedState:
    """The state of ``description`` before anything happened. Pure."""
    name = f"{description.name}/{seed}"
    hardware = description.hardware
    return SimulatedState(
        machine=description,
        seed=seed,
        boot_id=str(uuid.uuid5(_NAMESPACE, f"{name}/boot")),
        gpus=tuple(_initial_gpu(name, index, gpu) for index, gpu in enumerate(hardware.gpus)),
    )


def instance_uuid(gpu_uuid: str, gpu_instance: int, compute_instance: int, created: int) -> str:
    """UUID of a MIG device; ``created`` counts creations, since a recreated device gets a new UUID."""
    return f"MIG-{uuid.uuid5(_NAMESPACE, f'{gpu_uuid}/{gpu_instance}/{compute_instance}/{created}')}"


def _initial_gpu(name: str, index: int, gpu: GpuDescription) -> GpuState:
    identity = uuid.uuid5(_NAMESPACE, f"{name}/{index}")
    gpu_uuid = gpu.uuid or f"GPU-{identity}"
    enabled = gpu.mig is not None and gpu.mig.enabled
    return GpuState(
        uuid=gpu_uuid,
        serial=gpu.serial or f"{identity.int % 10**13:013d}",
        mig_enabled=enabled,
        mig_pending=enabled,
        instances=tuple(
            InstanceState(
                uuid=instance_uuid(gpu_uuid, number, 0, 0),
                gpu_instance=number,
                compute_instance=0,
                profile=instance.profile,
                start=instance.start,
            )
            # 0 is the GPU instance of the whole GPU; ids are not tied to placements.
            for number, instance in enumerate(gpu.mig.instances if gpu.mig else (), start=1)
        ),
    )
