"""The fields of ``--query-gpu`` and ``--query-compute-apps``: names, texts, units, where the values come from. Pure.

Names and units are those of ``nvidia-smi --help-query-gpu`` and of the headings that it prints. "N/A" stands for what
NVML does not tell; only CSV puts it into brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dra_driver.simulation.hardware.smi.facts import GpuFacts, Memory, Process

NOT_AVAILABLE = "N/A"
# Modes by nvmlComputeMode_t, as in CSV and logs; the table shortens them.
COMPUTE_MODES = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}

_NOT_SIMULATED = "Not simulated."


@dataclass(frozen=True, slots=True)
class Field:
    """``value`` None: what only the caller knows."""

    name: str
    help: str
    value: Callable[[GpuFacts], object] | None = None
    unit: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


def with_unit(value: object, unit: str) -> str:
    """As it is printed; None is what NVML does not tell."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value} {unit}" if unit else str(value)


def mebibytes(count: int | None) -> int | None:
    return None if count is None else count >> 20


def watts(milliwatts: int | None) -> str | None:
    return None if milliwatts is None else f"{milliwatts / 1000:.2f}"


def mode(enabled: bool | None) -> str | None:
    return None if enabled is None else "Enabled" if enabled else "Disabled"


def _memory(part: Callable[[Memory], int]) -> Callable[[GpuFacts], int | None]:
    return lambda gpu: None if gpu.memory is None else part(gpu.memory) >> 20


def _nothing(_gpu: GpuFacts) -> None:
    return None


GPU_FIELDS = (
    Field("timestamp", "When the query was made, as YYYY/MM/DD HH:MM:SS.msec."),
    Field("driver_version", "The version of the installed driver."),
    Field("count", "The number of GPUs in the system."),
    Field("name", "The official product name of the GPU.", lambda gpu: gpu.name, aliases=("gpu_name",)),
    Field("serial", "The serial number of the board.", lambda gpu: gpu.serial, aliases=("gpu_serial",)),
    Field("uuid", "The immutable identifier of the GPU.", lambda gpu: gpu.uuid, aliases=("gpu_uuid",)),
    Field("pci.bus_id", "PCI bus id, in hex.", lambda gpu: gpu.pci_bus_id, aliases=("gpu_bus_id",)),
    Field("pci.domain", "PCI domain, in hex.", lambda gpu: f"0x{gpu.pci_bus_id[4:8]}"),
    Field("pci.bus", "PCI bus, in hex.", lambda gpu: f"0x{gpu.pci_bus_id[9:11]}"),
    Field("pci.device", "PCI device, in hex.", lambda gpu: f"0x{gpu.pci_bus_id[12:14]}"),
    Field("pci.device_id", "PCI device and vendor id, in hex.", lambda gpu: f"0x{gpu.pci_device_id:08X}"),
    Field("pci.sub_device_id", "PCI subsystem id, in hex.", lambda gpu: f"0x{gpu.pci_subsystem_id:08X}"),
    Field("pcie.link.gen.current", _NOT_SIMULATED, _nothing, aliases=("pcie.link.gen.gpucurrent",)),
    Field("pcie.link.gen.max", _NOT_SIMULATED, _nothing),
    Field("pcie.link.width.current", _NOT_SIMULATED, _nothing),
    Field("pcie.link.width.max", _NOT_SIMULATED, _nothing),
    # A container counts from 0 those that it sees, so the caller knows it.
    Field("index", "Zero-based index of the GPU; can change at each boot."),
    Field("display_active", "Whether a display is initialised on the GPU.", lambda _gpu: "Disabled"),
    Field("persistence_mode", "Whether persistence mode is enabled.", lambda gpu: mode(gpu.persistence)),
    Field("addressing_mode", "The addressing mode of the GPU.", lambda gpu: gpu.addressing_mode or "None"),
    Field("accounting.mode", _NOT_SIMULATED, _nothing),
    Field("vbios_version", _NOT_SIMULATED, _nothing),
    Field("fan.speed", "These boards are cooled by the server.", _nothing, "%"),
    Field("pstate", "The performance state.", lambda gpu: _pstate(gpu.performance_state)),
    Field("memory.total", "Total memory.", _memory(lambda memory: memory.total), "MiB"),
    Field("memory.reserved", "Kept by the driver.", _memory(lambda memory: memory.reserved), "MiB"),
    Field("memory.used", "Used memory.", _memory(lambda memory: memory.used), "MiB"),
    Field("memory.free", "Free memory.", _memory(lambda memory: memory.free), "MiB"),
    Field("compute_mode", "Default, Exclusive_Process or Prohibited.", lambda gpu: COMPUTE_MODES[gpu.compute_mode]),
    Field("compute_cap", "The CUDA compute capability.", lambda gpu: gpu.compute_capability),
    Field("utilization.gpu", "Part of the time that kernels ran.", lambda gpu: gpu.gpu_percent, "%"),
    Field("utilization.memory", "Part of the time that memory was used.", lambda gpu: gpu.memory_percent, "%"),
    Field("ecc.mode.current", "Whether ECC is enabled.", lambda gpu: mode(gpu.ecc)),
    Field("ecc.mode.pending", "Whether it will be after a reboot.", lambda gpu: mode(gpu.ecc)),
    Field("ecc.errors.uncorrected.volatile.total", "Errors that ECC could not mend.", lambda gpu: gpu.ecc_errors),
    Field("temperature.gpu", "Core temperature, in degrees C.", lambda gpu: gpu.celsius),
    Field("temperature.memory", _NOT_SIMULATED, _nothing),
    Field("power.draw", "The power draw of the board.", lambda gpu: watts(gpu.power_milliwatts), "W"),
    Field("power.draw.average", "As power.draw.", lambda gpu: watts(gpu.power_milliwatts), "W"),
    Field("power.draw.instant", "As power.draw.", lambda gpu: watts(gpu.power_milliwatts), "W"),
    Field("power.limit", "The power limit.", lambda gpu: watts(gpu.power_limit_milliwatts), "W"),
    Field("enforced.power.limit", "The limit in force.", lambda gpu: watts(gpu.power_limit_milliwatts), "W"),
    Field("clocks.current.graphics", "Graphics clock.", lambda gpu: gpu.sm_mhz, "MHz", ("clocks.gr",)),
    Field("clocks.current.sm", "SM clock.", lambda gpu: gpu.sm_mhz, "MHz", ("clocks.sm",)),
    Field("clocks.current.memory", "Memory clock.", lambda gpu: gpu.memory_mhz, "MHz", ("clocks.mem",)),
    Field("clocks.max.graphics", "Highest graphics clock.", lambda gpu: gpu.max_sm_mhz, "MHz", ("clocks.max.gr",)),
    Field("clocks.max.sm", "Highest SM clock.", lambda gpu: gpu.max_sm_mhz, "MHz"),
    Field("clocks.max.memory", "Highest memory clock.", lambda gpu: gpu.max_memory_mhz, "MHz", ("clocks.max.mem",)),
    Field("mig.mode.current", "Whether MIG is enabled.", lambda gpu: mode(gpu.mig)),
    Field("mig.mode.pending", "Whether it will be after a reset.", lambda gpu: mode(gpu.mig_pending)),
)


@dataclass(frozen=True, slots=True)
class AppField:
    """A field of a process on a GPU."""

    name: str
    value: Callable[[GpuFacts, Process], object]
    unit: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


APP_FIELDS = (
    AppField("gpu_name", lambda gpu, _process: gpu.name),
    AppField("gpu_bus_id", lambda gpu, _process: gpu.pci_bus_id),
    AppField("gpu_serial", lambda gpu, _process: gpu.serial),
    AppField("gpu_uuid", lambda gpu, _process: gpu.uuid),
    AppField("pid", lambda _gpu, process: process.pid),
    # The real one prints this for a process whose name it cannot find.
    AppField("process_name", lambda _gpu, process: process.name or "[Not Found]", aliases=("name",)),
    AppField("used_gpu_memory", lambda _gpu, process: mebibytes(process.used_bytes), "MiB", ("used_memory",)),
)


def field_texts(gpu: GpuFacts, machine: Mapping[str, str]) -> dict[str, str]:
    """The text of each of GPU_FIELDS, with its unit; ``machine``: of those without a value."""
    return {
        each.name: machine[each.name] if each.value is None else with_unit(each.value(gpu), each.unit)
        for each in GPU_FIELDS
    }


def _pstate(state: int | None) -> str | None:
    return None if state is None else f"P{state}"
