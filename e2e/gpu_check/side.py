"""One side of the comparison: the hardware of this machine, or the simulation of what was captured of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from api.driver_config import DriverSpec
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.hardware.nvml import NvmlHardware, Reading
from dra_driver.hardware.sysfs import Sysfs


@dataclass(frozen=True)
class Side:
    """``state_file`` is that of simulated GPUs, None on hardware. ``maps``: what this process has loaded."""

    hardware: NvmlHardware
    driver_root: Path
    host_root: Path
    state_file: Path | None = None
    maps: Path = Path("/proc/self/maps")

    @cached_property
    def reading(self) -> Reading:
        """Everything that the adapter reads, once: the checks are about one moment."""
        return self.hardware.read()

    @property
    def machine(self) -> Machine:
        return self.reading.machine

    @cached_property
    def spec(self) -> DriverSpec:
        """The plugin's configuration on this machine."""
        spec = DriverSpec()
        hardware = spec.hardware.model_copy(update={"driver_root": self.driver_root, "host_root": self.host_root})
        return spec.model_copy(update={"hardware": hardware})

    def one_of_each_product(self) -> tuple[Gpu, ...]:
        """The first GPU of each product and MIG mode: the others answer alike, and time is short."""
        first: dict[tuple[str, bool], Gpu] = {}
        for gpu in self.machine.gpus:
            first.setdefault((gpu.product_name, gpu.mig is not None and gpu.mig.enabled), gpu)
        return tuple(first.values())


def real_side(driver_root: Path, host_root: Path) -> Side:
    """Not started. The library is found as the plugin finds it."""
    hardware = NvmlHardware(driver_root=driver_root, topology=Sysfs(host_root))
    return Side(hardware, driver_root, host_root)


def simulated_side(state_file: Path, tree: Path) -> Side:
    """Not started; the simulated library must be in place."""
    return Side(NvmlHardware(driver_root=tree, topology=Sysfs(tree)), tree, tree, state_file)
