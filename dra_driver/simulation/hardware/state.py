"""The simulated hardware's state as values: the machine description, what can change at run time, the faults to play.

Pure; ``state_file`` keeps it in a file that processes share. A MIG device is a compute instance within a GPU instance.
Ids are given again after a destruction; ``created``, the count of creations on that GPU, tells the old from the new,
as UUIDs do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import ConfigDict, Field

from api.base import ApiModel
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.simulation.hardware import driver_branches
from dra_driver.simulation.hardware.description import (
    DRIVER_VERSION,
    GpuDescription,
    MachineDescription,
    ProductDescription,
    ProfileDescription,
)
from dra_driver.simulation.hardware.placing import free_instance_id

# Names of our UUIDs (RFC 9562 version 5); any constant will do, as long as it stays.
_NAMESPACE = uuid.UUID("6f3c7f0e-5f0d-5f6e-9b1a-7d6d4c1f9a10")

COMPUTE_MODE_DEFAULT = 0
TIME_SLICE_DEFAULT = 0


class _State(ApiModel):
    model_config = ConfigDict(strict=True)


class ComputeInstanceState(_State):
    """``id`` within its GPU instance; ``start`` and ``slices`` in compute slices of it."""

    id: int
    uuid: str
    slices: int
    start: int
    created: int


class GpuInstanceState(_State):
    """``start`` in memory slices of the GPU; the size is the profile's."""

    id: int
    profile: int
    start: int
    created: int
    compute_instances: tuple[ComputeInstanceState, ...] = ()

    def with_compute_instances(self, compute: tuple[ComputeInstanceState, ...]) -> GpuInstanceState:
        return self.model_copy(update={"compute_instances": compute})


class ClientState(_State):
    """A process that uses the device of ``uuid``: a GPU or a MIG device.

    ``mps_server``: the MPS server (its process) that it is, or that it uses the device through. ``allocated``: bytes
    that it has of the device, charged to the ``cgroup`` that it was in then. ``holder``: which process answers for it
    (``mps.presence``); None: it is there until it is taken out.
    """

    pid: int
    uuid: str
    mps_server: int | None = None
    allocated: int = 0
    cgroup: str | None = None
    holder: str | None = None


class MemoryLimitState(_State):
    """What a cgroup has of a GPU's memory, in bytes; the cgroup has that inode, a later one of its name has another."""

    cgroup: str
    inode: int
    soft: int
    hard: int


class CgroupsState(_State):
    """Which folder is the mount of cgroup v2, and the v1 hierarchy that stands in for it (``CgroupHierarchy``)."""

    root: str
    stands_in: str = ""


class GpuState(_State):
    """What can change about one GPU, and its identity. ``mig_pending`` is the mode after the next reset.

    ``mig_changes`` counts changes of mode and instances; ``xids`` are all XID errors so far: what event sets wait for.
    """

    uuid: str
    serial: str
    mig_enabled: bool = False
    mig_pending: bool = False
    instances: tuple[GpuInstanceState, ...] = ()  # by id
    creations: int = 0
    mig_changes: int = 0
    xids: tuple[int, ...] = ()
    clients: tuple[ClientState, ...] = ()
    compute_mode: int = COMPUTE_MODE_DEFAULT
    time_slice: int = TIME_SLICE_DEFAULT  # by nvidia-smi's number
    memory_limits: tuple[MemoryLimitState, ...] = ()

    def instance(self, gpu_instance: int) -> GpuInstanceState | None:
        return next((each for each in self.instances if each.id == gpu_instance), None)

    def mig_devices(self) -> Iterator[tuple[GpuInstanceState, ComputeInstanceState]]:
        """In the order of NVML's MIG device indices, which shift when devices come and go."""
        for instance in self.instances:
            for compute in instance.compute_instances:
                yield instance, compute

    def is_used(self, uuid: str) -> bool:
        """Whether a process uses the GPU or MIG device of ``uuid``."""
        return any(client.uuid == uuid for client in self.clients)

    def with_instances(self, instances: tuple[GpuInstanceState, ...], **changes: object) -> GpuState:
        """With ``instances`` in the place of those that are there, and the further ``changes``."""
        ordered = tuple(sorted(instances, key=lambda each: each.id))
        return self.model_copy(update={"instances": ordered, "mig_changes": self.mig_changes + 1, **changes})

    def with_instance(self, instance: GpuInstanceState, **changes: object) -> GpuState:
        others = tuple(each for each in self.instances if each.id != instance.id)
        return self.with_instances((*others, instance), **changes)

    def set_by_somebody(self) -> Iterator[str]:
        """What differs from a GPU that has just been reset, and that no snapshot of the machine shows."""
        if self.compute_mode != COMPUTE_MODE_DEFAULT:
            yield f"compute mode {self.compute_mode}"
        if self.time_slice != TIME_SLICE_DEFAULT:
            yield f"time-slice interval {self.time_slice}"

    def reset(self) -> GpuState:
        """After a reset, or a reboot: the pending MIG mode is the mode, and all that is not lasting is gone."""
        return self.with_instances(
            (),
            mig_enabled=self.mig_pending,
            clients=(),
            compute_mode=COMPUTE_MODE_DEFAULT,
            time_slice=TIME_SLICE_DEFAULT,
            memory_limits=(),
        )

    def with_mode(self, *, enabled: bool, pending: bool) -> GpuState:
        return self.with_instances(
            self.instances if enabled == self.mig_enabled else (), mig_enabled=enabled, mig_pending=pending
        )


class CallFault(_State):
    """``function`` answers ``code`` (nvmlReturn_t): for one GPU (NVML index) or all, ``times`` or for ever.

    A function that takes no handle (nvmlDeviceGetHandleByIndex_v2) fails only by a fault without ``gpu``.
    """

    function: str
    code: int
    gpu: int | None = None
    times: int | None = Field(default=None, ge=1)


class GpuLatency(_State):
    """Calls of ``function`` about one GPU (NVML index) take ``seconds`` longer."""

    function: str
    gpu: int
    seconds: float


class MpsFault(_State):
    """What goes wrong with MPS daemons: with those that have one GPU (NVML index) or a MIG device of it, or with all.

    ``hang`` and ``crash`` name what is never answered and what the daemon dies of: a command of its language, "start",
    "client" (a client that connects); ``hang`` also "SIGTERM", and "*" for every command and client. ``wedge``: a
    client that is killed leaves a server that lets later clients wait for ever.
    """

    gpu: int | None = None
    start_seconds: float = Field(default=0.0, ge=0)
    answer_seconds: float = Field(default=0.0, ge=0)
    hang: tuple[str, ...] = ()
    crash: tuple[str, ...] = ()
    wedge: bool = False


class Faults(_State):
    """What goes wrong. ``latency`` is seconds per call by function, "*" for every function without its own.

    ``gpu_latency`` goes before both.
    """

    library_missing: bool = False
    missing_functions: tuple[str, ...] = ()
    latency: dict[str, float] = Field(default_factory=dict)
    gpu_latency: tuple[GpuLatency, ...] = ()
    calls: tuple[CallFault, ...] = ()
    lost_gpus: tuple[int, ...] = ()
    mps: tuple[MpsFault, ...] = ()

    def seconds(self, function: str, gpu: int | None) -> float:
        """How much longer a call takes; ``gpu`` None for a call that is about no GPU."""
        for each in self.gpu_latency:
            if each.function == function and each.gpu == gpu:
                return each.seconds
        return self.latency.get(function, self.latency.get("*", 0.0))


class DriverState(_State):
    """The driver's versions once they are others than the machine's: of the files, of the loaded module; None: none."""

    library: str | None = Field(default=None, pattern=DRIVER_VERSION)
    module: str | None = Field(default=None, pattern=DRIVER_VERSION)


class SimulatedState(_State):
    """The whole file. ``privileged`` False makes calls that need root answer "no permission".

    ``host_tree`` is the node's file tree, relative to the file's folder, once there is one (``host_root``).
    ``cgroups``: where the node's are, if not where the kernel has them.
    """

    machine: MachineDescription
    seed: str = ""
    boot_id: str
    privileged: bool = True
    host_tree: str | None = None
    driver: DriverState | None = None
    cgroups: CgroupsState | None = None
    gpus: tuple[GpuState, ...]
    faults: Faults = Faults()

    @property
    def library_version(self) -> str | None:
        """Of the driver's files in the node's tree; None while there are none."""
        return self.driver.library if self.driver else self.machine.hardware.driver_version

    @property
    def module_version(self) -> str | None:
        """Of the loaded kernel module; None while none is loaded."""
        return self.driver.module if self.driver else self.machine.hardware.driver_version

    @property
    def cuda_driver_version(self) -> int:
        """What the loaded driver serves, as NVML says it."""
        own = self.machine.hardware.cuda_driver_version
        if self.driver is None or self.driver.module is None:
            return own
        return driver_branches.cuda_driver_version(self.driver.module, own)

    @property
    def hierarchy(self) -> CgroupHierarchy:
        """In which memory is limited."""
        if self.cgroups is None:
            return CgroupHierarchy()
        return CgroupHierarchy(Path(self.cgroups.root), self.cgroups.stands_in)

    def description(self, index: int) -> GpuDescription:
        return self.machine.hardware.gpus[index]

    def product(self, index: int) -> ProductDescription:
        return self.machine.hardware.product_of(index)

    def profile(self, index: int, profile_id: int) -> ProfileDescription | None:
        return self.product(index).profile(profile_id)

    def with_gpu(self, index: int, gpu: GpuState) -> SimulatedState:
        return self.model_copy(update={"gpus": (*self.gpus[:index], gpu, *self.gpus[index + 1 :])})


def initial_state(description: MachineDescription, seed: str, *, driver: str | None = None) -> SimulatedState:
    """The state of ``description`` before anything happened, with ``driver`` in the place of its version. Pure.

    ValueError (pydantic's) for what is no version.
    """
    name = f"{description.name}/{seed}"
    hardware = description.hardware
    return SimulatedState(
        machine=description,
        seed=seed,
        boot_id=str(uuid.uuid5(_NAMESPACE, f"{name}/boot")),
        driver=None if driver is None else DriverState(library=driver, module=driver),
        gpus=tuple(
            _initial_gpu(name, index, gpu, hardware.product_of(index)) for index, gpu in enumerate(hardware.gpus)
        ),
    )


def instance_uuid(gpu_uuid: str, gpu_instance: int, compute_instance: int, created: int) -> str:
    """UUID of a MIG device; ``created`` counts creations, since a recreated device gets a new UUID."""
    return f"MIG-{uuid.uuid5(_NAMESPACE, f'{gpu_uuid}/{gpu_instance}/{compute_instance}/{created}')}"


def _initial_gpu(name: str, index: int, gpu: GpuDescription, product: ProductDescription) -> GpuState:
    identity = uuid.uuid5(_NAMESPACE, f"{name}/{index}")
    enabled = gpu.mig is not None and gpu.mig.enabled
    state = GpuState(
        uuid=gpu.uuid or f"GPU-{identity}",
        serial=gpu.serial or f"{identity.int % 10**13:013d}",
        mig_enabled=enabled,
        mig_pending=enabled,
    )
    for described in gpu.mig.instances if gpu.mig else ():
        profile = product.profile(described.profile)
        if profile is None:
            raise ValueError(f"{product.name} has no profile {described.profile}")  # the description refuses it
        identifier = free_instance_id(product, profile, (each.id for each in state.instances))
        instance = GpuInstanceState(id=identifier, profile=profile.id, start=described.start, created=state.creations)
        state = state.with_instance(instance, creations=state.creations + 1)
        for number, run in enumerate(described.computing(profile)):
            compute = ComputeInstanceState(
                id=number,
                uuid=instance_uuid(state.uuid, identifier, number, state.creations),
                slices=run.slices,
                start=run.start,
                created=state.creations,
            )
            instance = instance.with_compute_instances((*instance.compute_instances, compute))
            state = state.with_instance(instance, creations=state.creations + 1)
    return state.model_copy(update={"mig_changes": 0})
