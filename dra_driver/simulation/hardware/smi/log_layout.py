"""The log that ``nvidia-smi -q`` prints, as lines of ``layout``: its sections, by the names that ``-d`` takes. Pure.

Order, words and columns are those of driver 580 on a data-centre board. What the simulation has nothing to say about
(InfoROM, PCIe links, retired pages, fabric, ...) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dra_driver.simulation.hardware.smi.layout import Line

_COLUMN = 51  # where the colons are
_PROCESS_COLUMN = 38  # and of processes, still


@dataclass(frozen=True, slots=True)
class Section:
    """``name`` is what ``-d`` calls it; None for what only the whole log has."""

    name: str | None
    lines: tuple[Line, ...]


def _lines(text: str, column: int = _COLUMN) -> Iterator[Line]:
    """A line for each of ``text``: "label", "label: words", "label = field" or "label = field unit"."""
    for each in text.strip("\n").splitlines():
        label, equals, source = each.partition(" = ")
        if equals:
            name, _, unit = source.partition(" ")
            yield Line(f"{label:<{column}}: %s{' ' if unit else ''}{unit}", (name,))
            continue
        label, colon, words = each.partition(": ")
        yield Line(f"{label:<{column}}: {words}" if colon else each)


LOG_HEAD = (
    Line(""),
    Line("==============NVSMI LOG=============="),
    Line(""),
    *_lines(
        """
Timestamp = date
Driver Version = driver_version
CUDA Version = cuda_version
"""
    ),
    Line(""),
    *_lines("Attached GPUs = count"),
)
LOG_GPU = Line("GPU %s", ("pci.bus_id",))
LOG_END = Line("")  # after each GPU

BEFORE_MIG_DEVICES = (
    Section(
        None,
        tuple(
            _lines(
                """
    Product Name = name
    Product Brand = log.brand
    Product Architecture = log.architecture
    Display Mode: Requested functionality has been deprecated
    Display Attached: No
    Display Active = display_active
    Persistence Mode = persistence_mode
    Addressing Mode = addressing_mode
    MIG Mode
        Current = mig.mode.current
        Pending = mig.mode.pending
"""
            )
        ),
    ),
)
MIG_DEVICE = Section(
    None,
    tuple(
        _lines(
            """
    MIG Device
        Index = device.index
        GPU Instance ID = device.gpu_instance
        Compute Instance ID = device.compute_instance
        Device Attributes
            Shared
                Multiprocessor count = device.multiprocessors
                Copy Engine count = device.copy_engines
                Encoder count = device.encoders
                Decoder count = device.decoders
                OFA count = device.ofa_engines
                JPG count = device.jpeg_engines
        ECC Errors
            Volatile
                SRAM Uncorrectable = device.ecc_errors
        FB Memory Usage
            Total = device.total MiB
            Reserved = device.reserved MiB
            Used = device.used MiB
            Free = device.free MiB
        BAR1 Memory Usage
            Total = device.bar1_total MiB
            Used = device.bar1_used MiB
            Free = device.bar1_free MiB
"""
        )
    ),
)
_AFTER = {
    None: """
    Accounting Mode: Disabled
    Driver Model
        Current: N/A
        Pending: N/A
    Serial Number = serial
    GPU UUID = uuid
    Minor Number = minor
    VBIOS Version = vbios_version
    GPU Virtualization Mode
        Virtualization Mode: None
        Host VGPU Mode: N/A
    GPU Recovery Action: None
    GSP Firmware Version = driver_version
    PCI
        Bus = pci.bus
        Device = pci.device
        Domain = pci.domain
        Device Id = pci.device_id
        Bus Id = pci.bus_id
        Sub System Id = pci.sub_device_id
    Fan Speed = fan.speed
""",
    "PERFORMANCE": """
    Performance State = pstate
""",
    "MEMORY": """
    FB Memory Usage
        Total = memory.total
        Reserved = memory.reserved
        Used = memory.used
        Free = memory.free
    BAR1 Memory Usage
        Total = log.bar1_total
        Used = log.bar1_used
        Free = log.bar1_free
""",
    "COMPUTE": """
    Compute Mode = compute_mode
""",
    "UTILIZATION": """
    Utilization
        GPU = utilization.gpu
        Memory = utilization.memory
""",
    "ECC": """
    ECC Mode
        Current = ecc.mode.current
        Pending = ecc.mode.pending
    ECC Errors
        Volatile
            DRAM Uncorrectable = ecc.errors.uncorrected.volatile.total
""",
    "TEMPERATURE": """
    Temperature
        GPU Current Temp = log.temperature
        Memory Current Temp = temperature.memory
""",
    "POWER": """
    GPU Power Readings
        Average Power Draw = power.draw.average
        Instantaneous Power Draw = power.draw.instant
        Current Power Limit = enforced.power.limit
        Requested Power Limit = power.limit
""",
    "CLOCK": """
    Clocks
        Graphics = clocks.current.graphics
        SM = clocks.current.sm
        Memory = clocks.current.memory
    Max Clocks
        Graphics = clocks.max.graphics
        SM = clocks.max.sm
        Memory = clocks.max.memory
""",
}
AFTER_MIG_DEVICES = tuple(Section(name, tuple(_lines(text))) for name, text in _AFTER.items())

PROCESSES = "PIDS"
NO_PROCESSES = Section(PROCESSES, tuple(_lines("    Processes: None")))
PROCESS_HEAD = Line("    Processes")
PROCESS = Section(
    PROCESSES,
    tuple(
        _lines(
            """
        GPU instance ID = process.gpu_instance
        Compute instance ID = process.compute_instance
        Process ID = process.pid
            Type: C
            Name = process.name
            Used GPU Memory = process.memory
""",
            _PROCESS_COLUMN,
        )
    ),
)

DISPLAYS = (*(each.name for each in AFTER_MIG_DEVICES if each.name is not None), PROCESSES)
"""What ``-d`` can ask for."""
