"""What a simulated function gets to work with, and how functions are declared.

A function is declared by the kind of handle it takes first; the library checks that handle, plays the faults and hands
over a :class:`Call`. The function writes its results into the C arguments; it returns nothing for success and raises
:class:`~dra_driver.simulation.hardware.arguments.Refused` for every other code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, set_address, target
from dra_driver.simulation.hardware.description import GpuDescription, ProductDescription, ProfileDescription
from dra_driver.simulation.hardware.handles import Handles, Kind, Target
from dra_driver.simulation.hardware.mps import presence
from dra_driver.simulation.hardware.state import ComputeInstanceState, GpuInstanceState, GpuState, SimulatedState
from dra_driver.simulation.hardware.state_file import StateFile


class EventSetTable(Protocol):
    """What the functions of event sets need; :class:`dra_driver.simulation.hardware.events.EventSets` is one."""

    def create(self) -> int: ...
    def register(self, event_set: int, gpu: int, types: int, state: GpuState) -> None: ...
    def take(self, event_set: int, state: SimulatedState) -> tuple[int, int, int] | None: ...
    def free(self, event_set: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the state at its beginning, and the file to change it."""

    state: SimulatedState
    file: StateFile
    handles: Handles
    events: EventSetTable

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
        return self._as_it_is(self.state.gpus[self.index])

    @property
    def instance(self) -> GpuInstanceState:
        """The GPU instance that the handle stands for or is in; "not found" when it is gone meanwhile."""
        return instance_of(self.gpu, self.target)

    @property
    def compute_instance(self) -> ComputeInstanceState:
        """The compute instance (so the MIG device) that the handle stands for; "not found" when it is gone."""
        return compute_instance_of(self.gpu, self.target)[1]

    @property
    def instance_profile(self) -> ProfileDescription:
        profile = self.state.profile(self.index, self.instance.profile)
        if profile is None:
            raise Refused(Return.UNKNOWN)
        return profile

    def require_privileges(self) -> None:
        if not self.state.privileged:
            raise Refused(Return.NO_PERMISSION)

    def change_gpu(self, change: Callable[[GpuState], GpuState]) -> None:
        """Replace this GPU by ``change`` of it, as it is when nobody else changes the state. It may refuse."""
        self.file.update(lambda state: state.with_gpu(self.index, change(self._as_it_is(state.gpus[self.index]))))

    def _as_it_is(self, gpu: GpuState) -> GpuState:
        """Without what processes that were killed have left in the state: the kernel has freed the GPU of them."""
        ended = presence.ended(self.file.path, (client.holder for client in gpu.clients))
        if not ended:
            return gpu
        return gpu.model_copy(update={"clients": tuple(each for each in gpu.clients if each.holder not in ended)})


def instance_of(gpu: GpuState, target: Target) -> GpuInstanceState:
    """What a handle of a GPU instance, a compute instance or a MIG device is in; "not found" when it is gone."""
    instance = gpu.instance(target.gpu_instance)
    if instance is None:
        raise Refused(Return.NOT_FOUND)
    if target.compute_instance == -1:
        if instance.created != target.created:
            raise Refused(Return.NOT_FOUND)
        return instance
    return compute_instance_of(gpu, target)[0]


def compute_instance_of(gpu: GpuState, target: Target) -> tuple[GpuInstanceState, ComputeInstanceState]:
    """What a handle of a compute instance or a MIG device stands for; "not found" when it is gone."""
    for instance, compute in gpu.mig_devices():
        if (instance.id, compute.id, compute.created) == (target.gpu_instance, target.compute_instance, target.created):
            return instance, compute
    raise Refused(Return.NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Function:
    """``kinds`` are the handles that its first argument may be; none for a function of the whole system.

    ``since``: the branch of the first driver that has it.
    """

    run: Callable[..., None]
    kinds: tuple[Kind, ...] = ()
    since: int = 0


FunctionTable = dict[str, Function]
