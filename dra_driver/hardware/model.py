"""What a GPU node is made of, as frozen values: the one vocabulary between hardware and everything above it.

A :class:`Machine` is a snapshot. Nothing here does I/O; the NVML adapter makes snapshots, ``devices`` reads them, and
``inventory`` turns them into the NodeInventory status and back. Units are in the field names: bytes, MiB (2**20).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from api.fractions import SharingBackend


@dataclass(frozen=True, slots=True, order=True)
class MigPlacement:
    """A run of memory slices that a GPU instance may occupy (nvmlGpuInstancePlacement_t)."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def overlaps(self, other: MigPlacement) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One GPU instance profile of a product (nvmlGpuInstanceProfileInfo_v2_t) and where it may be placed.

    ``id`` is the hardware id that ``nvidia-smi mig -lgip`` prints; ``enum_index`` is NVML's own constant, the argument
    of nvmlDeviceGetGpuInstanceProfileInfo. They are different numbers.
    """

    name: str  # "1g.10gb+me", without NVML's leading "MIG "
    id: int
    enum_index: int
    slice_count: int  # compute slices (G)
    instance_count: int  # how many fit on one GPU
    memory_mib: int
    multiprocessors: int
    copy_engines: int
    decoders: int
    encoders: int
    jpeg_engines: int
    ofa_engines: int
    placements: tuple[MigPlacement, ...]
    p2p_supported: bool = False


@dataclass(frozen=True, slots=True)
class ComputeInstance:
    """A compute instance: what a process uses, and so a MIG device (nvmlComputeInstanceInfo_t)."""

    id: int  # within its GPU instance
    uuid: str  # "MIG-..."; another one each time it is created
    slices: int  # compute slices (C), at most those of the GPU instance
    start: int = 0  # first compute slice within the GPU instance


@dataclass(frozen=True, slots=True)
class GpuInstance:
    """A GPU instance as found on the hardware. Without a compute instance nobody can use it.

    ``foreign`` is the plugin's word: no claim that it knows of made this instance. The hardware does not tell.
    """

    id: int  # not tied to the placement
    profile_id: int
    profile_name: str
    placement: MigPlacement
    compute_instances: tuple[ComputeInstance, ...] = ()
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class RefusedPlacement:
    """Where NVML refused to create a GPU instance although it listed nothing there. The plugin's word as well."""

    profile_id: int
    placement: MigPlacement
    message: str


@dataclass(frozen=True, slots=True)
class MigState:
    """MIG of one GPU. ``None`` in :attr:`Gpu.mig` means the product has no MIG."""

    enabled: bool
    pending: bool  # mode after the next reset
    profiles: tuple[MigProfile, ...] = ()
    instances: tuple[GpuInstance, ...] = ()  # by placement
    refused: tuple[RefusedPlacement, ...] = ()

    def profile(self, profile_id: int) -> MigProfile | None:
        """The profile with the hardware's id ``profile_id``."""
        return next((profile for profile in self.profiles if profile.id == profile_id), None)


@dataclass(frozen=True, slots=True)
class UnhealthyMps:
    """A device whose MPS daemon is dead or stuck. ``device``: its published name. The plugin's word, too."""

    device: str
    message: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """Memory of a device that no share of it can have: what the driver keeps, and an MPS server. ``device``: its
    published name. The plugin's word: it has measured that on the idle device."""

    device: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One physical GPU. ``minor`` names it (``/dev/nvidia<minor>``, device ``gpu-<minor>``).

    NVML's index is not stable: it changes with the GPUs that answer.
    """

    index: int
    minor: int
    uuid: str  # "GPU-..."
    product_name: str  # "NVIDIA H100 80GB HBM3"
    brand: str  # NVIDIA's DRA names: "Nvidia", "Tesla", ...
    architecture: str  # "Hopper", "Ada Lovelace", ...
    cuda_compute_capability: str  # "9.0"
    pci_bus_id: str  # "0000:1a:00.0", lower case, four-digit domain
    memory_bytes: int | None = None  # None on unified-memory GPUs, where NVML gives no total
    addressing_mode: str | None = None  # "ATS", "HMM", "None"; None when NVML lacks the query
    pcie_root: str | None = None  # "pci0000:15", from sysfs
    numa_node: int | None = None  # from sysfs; None when negative or unknown
    pci_device_id: int | None = None  # (device << 16) | vendor, as nvmlPciInfo_t has it: 0x233010de
    mig: MigState | None = None
    mps_unhealthy: tuple[UnhealthyMps, ...] = ()
    reserves: tuple[Reserve, ...] = ()
    unfenced: tuple[str, ...] = ()  # devices, by published name, on which a share's fence has gone; the plugin's word


@dataclass(frozen=True, slots=True)
class Machine:
    """One node's GPUs, ordered by PCI bus id, and the driver they run with. No GPUs is a valid machine."""

    driver_version: str  # as NVML says it: "580.105.08"
    cuda_driver_version: int  # as NVML says it: 13000
    gpus: tuple[Gpu, ...] = field(default=())
    fences: tuple[SharingBackend, ...] = ()  # what can fence fractions on this node; the plugin's word

    def with_minor(self, minor: int | None) -> Gpu | None:
        """The GPU of that minor number; none has None."""
        return next((gpu for gpu in self.gpus if gpu.minor == minor), None)

    def with_uuid(self, uuid: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)
