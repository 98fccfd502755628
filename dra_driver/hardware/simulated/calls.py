"""What a simulated function gets to work with, and how functions are declared.

A function is declared by the kind of handle it takes first; the library checks that handle, plays the faults and hands
over a :class:`Call`. The function writes its results into the C arguments; it returns nothing for success and raises
:class:`~dra_driver.hardware.simulated.arguments.Refused` for every other code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.simulated.arguments import Refused, set_address, target
from dra_driver.hardware.simulated.description import GpuDescription, ProductDescription, ProfileDescription
from dra_driver.hardware.simulated.handles import Handles, Kind, Target
from dra_driver.hardware.simulated.state import GpuState, InstanceState, SimulatedState, StateFile


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the state at its beginning, and the file to change it."""

    state: SimulatedState
    file: StateFile
    handles: Handles

    def give_handle(self, pointer: Any, wanted: Target) -> None:
        set_address(target(pointer), self.handles.address(wanted))

    def require_present(self, gpu: int) -> None:
        """Every call about a GPU that fell off the bus says so."""
        if gpu in self.state.faults.lost_gpus:
            raise Refused(Return.GPU_IS_LOST)


@dataclass(frozen=True, slots=True)
class DeviceCall(Call):
    """A call whose first argument was a valid handle of ``target``."""

    target: Target

    @property
    def index(self) -> int:
        return self.target.gpu

    @property
    def description(self) -> GpuDescription:
        return self.state.description(self.index)

    @property
    def product(self) -> ProductDescription:
        return self.state.product(self.index)

    @property
    def gpu(self) -> GpuState:
        return self.state.gpus[self.index]

    @property
    def instance(self) -> InstanceState:
        """The MIG device or instance that the handle stands for; "not found" when it is gone meanwhile."""
        for each in self.gpu.instances:
            same_compute = self.target.compute_instance in (-1, each.compute_instance)
            if each.gpu_instance == self.target.gpu_instance and same_compute:
                return each
        raise Refused(Return.NOT_FOUND)

    @property
    def instance_profile(self) -> ProfileDescription:
        profile = self.state.profile(self.index, self.instance.profile)
        if profile is None:
            raise Refused(Return.UNKNOWN)
        return profile


@dataclass(frozen=True, slots=True)
class Function:
    """``kinds`` are the handles that its first argument may be; none for a function of the whole system."""

    run: Callable[..., None]
    kinds: tuple[Kind, ...] = ()


FunctionTable = dict[str, Function]
