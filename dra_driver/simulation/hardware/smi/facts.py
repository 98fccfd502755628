"""What the simulated nvidia-smi shows of a GPU, a MIG device and a process, as values with NVML's units.

None is what NVML does not tell. There are two makers of them, which a contract test holds together: ``from_nvml`` on a
node, ``from_state`` for the script in containers, where there is no NVML.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. ``used`` does not count what the driver keeps (nvmlMemory_v2_t)."""

    total: int
    reserved: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class Bar1:
    """In bytes."""

    total: int
    used: int


@dataclass(frozen=True, slots=True)
class MigDevice:
    """``index`` among those of its GPU that can be seen here; engines are those of its GPU instance."""

    index: int
    gpu_instance: int
    compute_instance: int
    uuid: str
    name: str  # "3g.20gb"
    multiprocessors: int
    copy_engines: int
    encoders: int
    decoders: int
    ofa_engines: int
    jpeg_engines: int
    memory: Memory
    bar1: Bar1


@dataclass(frozen=True, slots=True)
class Process:
    """A process that computes on a GPU or, with both instance ids, on a MIG device of it."""

    pid: int
    name: str | None
    used_bytes: int | None
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU. Modes are True for enabled."""

    index: int
    minor: int
    uuid: str
    serial: str | None
    name: str
    brand: str
    architecture: str
    compute_capability: str
    addressing_mode: str | None
    pci_bus_id: str  # "00000000:17:00.0"
    pci_device_id: int  # device << 16 | vendor
    pci_subsystem_id: int
    memory: Memory | None
    bar1: Bar1 | None
    celsius: int | None
    power_milliwatts: int | None
    power_limit_milliwatts: int | None
    gpu_percent: int | None
    memory_percent: int | None
    performance_state: int | None
    sm_mhz: int | None
    memory_mhz: int | None
    max_sm_mhz: int | None
    max_memory_mhz: int | None
    persistence: bool | None
    ecc: bool | None
    ecc_errors: int | None  # uncorrected, since the driver was loaded
    compute_mode: int  # nvmlComputeMode_t
    mig: bool | None
    mig_pending: bool | None
    mig_devices: tuple[MigDevice, ...] = ()
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """Of the driver, and of the newest CUDA that it serves."""

    driver: str
    cuda: str
