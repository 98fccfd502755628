"""MIG in memory, as strict as the simulated NVML but a hundred times faster; kept honest by test_mig_hardware.py.

Beyond what NVML refuses, it refuses what our code must never do: setting a mode that is set, or MIG mode at all on a
GPU that needs a reset for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from dra_driver.cdi.spec import DeviceNode
from dra_driver.devices.policy import toggles_without_reset
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, Machine, MigPlacement, MigProfile
from dra_driver.hardware.nvml import GpuBusy, InstanceInUse, PlacementOccupied

_LONGEST_HOLD = 60.0


class Misuse(AssertionError):
    """Our code did what it must not do on hardware."""


@dataclass(frozen=True)
class Fault:
    """The next call of ``function`` fails, before it did anything or after it did all."""

    function: str
    error: Callable[[], BaseException] = lambda: HardwareError("NVML_ERROR_UNKNOWN")
    after: bool = False


@dataclass
class _Board:
    gpu: Gpu
    enabled: bool
    instances: dict[int, GpuInstance] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def profile(self, profile_id: int) -> MigProfile:
        found = self.gpu.mig.profile(profile_id) if self.gpu.mig else None
        if found is None:
            raise HardwareError("NVML_ERROR_INVALID_ARGUMENT")
        return found


class FakeMig:
    """A ``kubelet_plugin.hardware.mig.MigHardware``.

    ``refused``: (GPU, profile id, start) at which NVML has no resources though nothing is there. ``in_use``: UUIDs of
    compute instances with a process. ``busy``: GPUs with a client. ``held``: what calls of a function on a GPU wait for.
    """

    def __init__(self, machine: Machine) -> None:
        self._boards = {gpu.uuid: _Board(gpu, gpu.mig.enabled) for gpu in machine.gpus if gpu.mig is not None}
        self._made = 0
        self.faults: list[Fault] = []
        self.refused: set[tuple[str, int, int]] = set()
        self.in_use: set[str] = set()
        self.busy: set[str] = set()
        self.held: dict[tuple[str, str], threading.Event] = {}
        self.calls: list[str] = []

    # -- what the plugin uses ----------------------------------------------------------------------------------------

    def mode(self, gpu_uuid: str) -> tuple[bool, bool]:
        with self._call("mode", gpu_uuid) as board:
            return board.enabled, board.enabled

    def set_mode(self, gpu_uuid: str, enabled: bool) -> None:
        with self._call("set_mode", gpu_uuid) as board:
            if not toggles_without_reset(board.gpu):
                raise Misuse(f"MIG mode of {gpu_uuid} changes only with a reset")
            if board.enabled is enabled:
                raise Misuse(f"MIG mode of {gpu_uuid} is {enabled} already")
            if gpu_uuid in self.busy or board.instances:
                raise GpuBusy(f"GPU {gpu_uuid} is in use", hint="stop its clients")
            board.enabled = enabled

    def instances(self, gpu_uuid: str) -> tuple[GpuInstance, ...]:
        with self._call("instances", gpu_uuid) as board:
            return tuple(sorted(board.instances.values(), key=lambda each: each.placement))

    def instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> GpuInstance | None:
        where = (profile_id, placement)
        return next((each for each in self.instances(gpu_uuid) if (each.profile_id, each.placement) == where), None)

    def create_gpu_instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> int:
        with self._call("create_gpu_instance", gpu_uuid) as board:
            return self._create_gpu_instance(board, profile_id, placement)

    def create_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, slices: int) -> ComputeInstance:
        with self._call("create_compute_instance", gpu_uuid) as board:
            return self._create_compute_instance(board, gpu_instance_id, slices)

    def destroy_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, compute_instance_id: int) -> None:
        with self._call("destroy_compute_instance", gpu_uuid) as board:
            found = board.instances.get(gpu_instance_id)
            if found is None:
                return
            if any(each.uuid in self.in_use for each in found.compute_instances if each.id == compute_instance_id):
                raise InstanceInUse(f"compute instance {compute_instance_id} is in use")
            left = tuple(each for each in found.compute_instances if each.id != compute_instance_id)
            board.instances[gpu_instance_id] = replace(found, compute_instances=left)

    def destroy_gpu_instance(self, gpu_uuid: str, gpu_instance_id: int) -> None:
        with self._call("destroy_gpu_instance", gpu_uuid) as board:
            found = board.instances.get(gpu_instance_id)
            if found is not None and found.compute_instances:
                raise InstanceInUse(f"GPU instance {gpu_instance_id} has compute instances")
            board.instances.pop(gpu_instance_id, None)

    # -- what others do, and what tests look at ----------------------------------------------------------------------

    def by_hand(self, gpu_uuid: str, profile_id: int, start: int) -> GpuInstance:
        """``nvidia-smi mig -cgi PROFILE:START -C``, MIG mode included. Raises as NVML does."""
        board = self._boards[gpu_uuid]
        with board.lock:
            board.enabled = True
            profile = board.profile(profile_id)
            placement = next(each for each in profile.placements if each.start == start)
            made = self._create_gpu_instance(board, profile_id, placement)
            self._create_compute_instance(board, made, profile.slice_count)
            return board.instances[made]

    def destroy_by_hand(self, gpu_uuid: str, gpu_instance_id: int) -> None:
        with self._boards[gpu_uuid].lock:
            self._boards[gpu_uuid].instances.pop(gpu_instance_id)

    def turn_on(self, gpu_uuid: str) -> None:
        self._boards[gpu_uuid].enabled = True

    def turn_off(self, gpu_uuid: str) -> None:
        self._boards[gpu_uuid].enabled = False

    def everything(self) -> dict[str, tuple[GpuInstance, ...]]:
        """All instances now, by GPU; only GPUs that have some."""
        found = {
            uuid: tuple(sorted(board.instances.values(), key=lambda each: each.placement))
            for uuid, board in self._boards.items()
        }
        return {uuid: instances for uuid, instances in found.items() if instances}

    def enabled(self) -> set[str]:
        return {uuid for uuid, board in self._boards.items() if board.enabled}

    def machine(self, machine: Machine) -> Machine:
        """``machine`` as a reading would show it now."""
        return replace(machine, gpus=tuple(self._read(gpu) for gpu in machine.gpus))

    def _read(self, gpu: Gpu) -> Gpu:
        if gpu.mig is None:
            return gpu
        board = self._boards[gpu.uuid]
        instances = tuple(sorted(board.instances.values(), key=lambda each: each.placement))
        return replace(gpu, mig=replace(gpu.mig, enabled=board.enabled, pending=board.enabled, instances=instances))

    # -- the hardware ------------------------------------------------------------------------------------------------

    @contextmanager
    def _call(self, function: str, gpu_uuid: str) -> Iterator[_Board]:
        self.calls.append(function)
        board = self._boards.get(gpu_uuid)
        if board is None:
            raise HardwareError(f"no GPU {gpu_uuid} with MIG")
        if released := self.held.get((function, gpu_uuid)):
            released.wait(_LONGEST_HOLD)
        fault = next((each for each in self.faults if each.function == function), None)
        if fault is not None:
            self.faults.remove(fault)
            if not fault.after:
                raise fault.error()
        with board.lock:
            yield board
        if fault is not None:
            raise fault.error()

    def _create_gpu_instance(self, board: _Board, profile_id: int, placement: MigPlacement) -> int:
        profile = board.profile(profile_id)
        if not board.enabled or placement not in profile.placements:
            raise HardwareError("NVML_ERROR_INVALID_ARGUMENT")
        others = board.instances.values()
        if (
            (board.gpu.uuid, profile_id, placement.start) in self.refused
            or any(each.placement.overlaps(placement) for each in others)
            or sum(each.profile_id == profile_id for each in others) >= profile.instance_count
        ):
            raise PlacementOccupied("NVML_ERROR_INSUFFICIENT_RESOURCES")
        number = next(each for each in range(1, 100) if each not in board.instances)
        board.instances[number] = GpuInstance(number, profile_id, profile.name, placement)
        return number

    def _create_compute_instance(self, board: _Board, gpu_instance_id: int, slices: int) -> ComputeInstance:
        found = board.instances.get(gpu_instance_id)
        if found is None:
            raise HardwareError("NVML_ERROR_NOT_FOUND")
        taken = list(found.compute_instances)
        start = max((each.start + each.slices for each in taken), default=0)
        if start + slices > board.profile(found.profile_id).slice_count:
            raise PlacementOccupied("NVML_ERROR_INSUFFICIENT_RESOURCES")
        self._made += 1
        number = next(each for each in range(100) if each not in {other.id for other in taken})
        made = ComputeInstance(number, f"MIG-{self._made:04}", slices, start)
        board.instances[gpu_instance_id] = replace(found, compute_instances=(*taken, made))
        return made


def fake_capabilities(gpu_minor: int, gpu_instance: int, compute_instance: int, /) -> tuple[DeviceNode, ...]:
    """A ``kubelet_plugin.kinds.mig.capabilities.CapabilityReader`` with numbers that tell what they belong to."""
    first = 1000 * gpu_minor + 10 * gpu_instance
    return tuple(
        DeviceNode(f"/dev/nvidia-caps/nvidia-cap{minor}", type="c", major=236, minor=minor)
        for minor in (first, first + 1 + compute_instance)
    )
