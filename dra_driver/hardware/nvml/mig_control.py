"""Changes MIG of one GPU through NVML: mode, GPU instances, compute instances. It decides nothing.

Instances are known by their ids on the hardware; the caller must know which claim an instance belongs to. What NVML
answers becomes an error that says what a caller can do about it; other answers stay :class:`NvmlCallError`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ctypes import byref
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import ComputeInstance, GpuInstance, MigPlacement, MigProfile
from dra_driver.hardware.nvml.binding import array, call, query
from dra_driver.hardware.nvml.codes import Return, code_name
from dra_driver.hardware.nvml.errors import (
    GpuBusy,
    InstanceInUse,
    MigModePending,
    NvmlCallError,
    PlacementOccupied,
)
from dra_driver.hardware.nvml.mig import ProfileTables, read_instances, read_mode

logger = logging.getLogger(__name__)

# NVML's compute instance profiles by slices (NVML_COMPUTE_INSTANCE_PROFILE_*). Seven slices are 4; 8 is a variant of
# it that most products lack.
_COMPUTE_PROFILES = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4, 8: 5, 6: 6}
_SHARED_ENGINES = 0  # NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED

_GONE = frozenset({Return.NOT_FOUND, Return.NOT_SUPPORTED})  # "not supported": MIG is off, so nothing is there
_BUSY_HINT = "stop what uses the GPU (dcgm, nvidia-persistenced, jobs); the next try asks again"


class MigControl:
    """MIG of the GPUs of this process's NVML, which must be initialised. Thread-safe.

    It remembers which profiles a GPU has, and nothing else: asking for them takes half of the time of looking at the
    instances, which every prepare and unprepare does. Every method takes a GPU's UUID and raises :class:`NvmlCallError`
    for what it does not name, HardwareUnavailable when NVML cannot be used.
    """

    def __init__(self) -> None:
        self._tables = ProfileTables()

    def mode(self, gpu_uuid: str) -> tuple[bool, bool]:
        """MIG mode now, and after the next reset (nvmlDeviceGetMigMode). A product without MIG is off for ever."""
        return read_mode(_handle(gpu_uuid), gpu_uuid) or (False, False)

    def set_mode(self, gpu_uuid: str, enabled: bool) -> None:
        """Switch MIG mode, so that it is active on return (nvmlDeviceSetMigMode).

        MigModePending when only a reset would activate it, GpuBusy when processes or instances hold the GPU. A mode
        that was not pending before is not left pending then.
        """
        handle, word = _handle(gpu_uuid), "on" if enabled else "off"
        before = read_mode(handle, gpu_uuid)
        if before == (enabled, enabled):
            return
        try:
            status = int(call("nvmlDeviceSetMigMode", handle, int(enabled), device=gpu_uuid))
        except NvmlCallError as error:
            if error.code == Return.IN_USE:
                raise GpuBusy(
                    f"MIG mode of {gpu_uuid} cannot be switched {word}: MIG instances or processes hold the GPU",
                    hint=_BUSY_HINT,
                ) from error
            raise
        # Some drivers report success for a mode that is only pending.
        if status == Return.SUCCESS and self.mode(gpu_uuid)[0] == enabled:
            return
        if before is None or before[1] != enabled:  # else somebody had asked for it already, and waits for the reset
            _put_back(handle, gpu_uuid, enabled)
        if status == Return.IN_USE:
            raise GpuBusy(f"MIG mode of {gpu_uuid} cannot be switched {word}: a process uses the GPU", hint=_BUSY_HINT)
        if status in (Return.SUCCESS, Return.RESET_REQUIRED):
            raise MigModePending(
                f"MIG mode of {gpu_uuid} cannot be switched {word} without a reset of the GPU",
                hint=f"drain the node, nvidia-smi -i {gpu_uuid} -mig {int(enabled)}, nvidia-smi -i {gpu_uuid} -r",
            )
        raise NvmlCallError("activation of nvmlDeviceSetMigMode", gpu_uuid, status)

    def instances(self, gpu_uuid: str) -> tuple[GpuInstance, ...]:
        """The GPU instances as they are on the hardware now, with their compute instances; none with MIG off."""
        handle = _handle(gpu_uuid)
        return read_instances(handle, gpu_uuid, self._profiles(handle, gpu_uuid))

    def instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> GpuInstance | None:
        """As :meth:`instances`, but the one of ``profile_id`` at ``placement``. Others' profiles are not asked for."""
        handle = _handle(gpu_uuid)
        wanted = [profile for profile in self._profiles(handle, gpu_uuid) if profile.id == profile_id]
        found = read_instances(handle, gpu_uuid, wanted) if wanted else ()
        return next((each for each in found if each.placement == placement), None)

    def _profiles(self, handle: Any, gpu_uuid: str) -> Sequence[MigProfile]:
        """Those that instances may have now; none with MIG off."""
        enabled, _pending = read_mode(handle, gpu_uuid) or (False, False)
        return self._tables.of(handle, gpu_uuid, gpu_uuid, enabled=True) if enabled else ()

    def create_gpu_instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> int:
        """Make a GPU instance of the hardware's ``profile_id`` at ``placement``; its id.

        PlacementOccupied when NVML has no room there (insufficient resources).
        """
        where = array("c_nvmlGpuInstancePlacement_t", 1)[0]
        where.start, where.size = placement.start, placement.size
        what = f"GPU instance of profile {profile_id} at {placement.start}:{placement.size} of {gpu_uuid}"
        try:
            made = call(
                "nvmlDeviceCreateGpuInstanceWithPlacement", _handle(gpu_uuid), profile_id, byref(where), device=gpu_uuid
            )
        except NvmlCallError as error:
            raise _no_room(error, what) from error
        try:
            return int(call("nvmlGpuInstanceGetInfo", made, device=gpu_uuid).id)
        except HardwareError:
            _undo("nvmlGpuInstanceDestroy", made, what)
            raise

    def create_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, slices: int) -> ComputeInstance:
        """Make a compute instance of ``slices`` where NVML puts it. The UUID comes from its own device handle.

        PlacementOccupied when the GPU instance has no such room.
        """
        what = f"compute instance of {slices} slices in GPU instance {gpu_instance_id} of {gpu_uuid}"
        parent = call("nvmlDeviceGetGpuInstanceById", _handle(gpu_uuid), gpu_instance_id, device=gpu_uuid)
        profile = call(
            "nvmlGpuInstanceGetComputeInstanceProfileInfo",
            parent,
            _compute_profile(slices, what),
            _SHARED_ENGINES,
            device=what,
        )
        try:
            made = call("nvmlGpuInstanceCreateComputeInstance", parent, int(profile.id), device=gpu_uuid)
        except NvmlCallError as error:
            raise _no_room(error, what) from error
        try:
            info = call("nvmlComputeInstanceGetInfo", made, device=what)
            uuid = str(call("nvmlDeviceGetUUID", info.device, device=what))
        except HardwareError:
            _undo("nvmlComputeInstanceDestroy", made, what)
            raise
        return ComputeInstance(int(info.id), uuid, int(info.placement.size) or slices, int(info.placement.start))

    def destroy_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, compute_instance_id: int) -> None:
        """Destroy it; one that is gone already is fine. InstanceInUse while a process uses it."""
        what = f"compute instance {compute_instance_id} of GPU instance {gpu_instance_id} of {gpu_uuid}"
        parent = _found(gpu_uuid, "nvmlDeviceGetGpuInstanceById", _handle(gpu_uuid), gpu_instance_id)
        if parent is None:
            return
        instance = _found(gpu_uuid, "nvmlGpuInstanceGetComputeInstanceById", parent, compute_instance_id)
        if instance is not None:
            _destroy("nvmlComputeInstanceDestroy", instance, what)

    def destroy_gpu_instance(self, gpu_uuid: str, gpu_instance_id: int) -> None:
        """Destroy it; one that is gone already is fine. InstanceInUse while it has compute instances or processes."""
        instance = _found(gpu_uuid, "nvmlDeviceGetGpuInstanceById", _handle(gpu_uuid), gpu_instance_id)
        if instance is not None:
            _destroy("nvmlGpuInstanceDestroy", instance, f"GPU instance {gpu_instance_id} of {gpu_uuid}")


def _handle(gpu_uuid: str) -> Any:
    return call("nvmlDeviceGetHandleByUUID", gpu_uuid, device=gpu_uuid)


def _put_back(handle: Any, gpu_uuid: str, enabled: bool) -> None:
    """Take back a mode that is only pending, or the next reset, whoever's it is, would activate it."""
    try:
        query("nvmlDeviceSetMigMode", handle, int(not enabled), device=gpu_uuid)
    except HardwareError as error:
        logger.warning("MIG mode of %s stays pending: %s", gpu_uuid, error)


def _compute_profile(slices: int, what: str) -> int:
    try:
        return _COMPUTE_PROFILES[slices]
    except KeyError as error:
        raise HardwareError(f"NVML has no profile for a {what}", hint="use the slices of the GPU instance") from error


def _no_room(error: NvmlCallError, what: str) -> HardwareError:
    if error.code != Return.INSUFFICIENT_RESOURCES:
        return error
    return PlacementOccupied(
        f"no room for a {what}: {code_name(error.code)}",
        hint="another instance holds memory slices, compute slices or media engines: nvidia-smi mig -lgi",
    )


def _found(gpu_uuid: str, function: str, parent: Any, identifier: int) -> Any:
    """The handle of an instance by id, None when it is gone."""
    try:
        return call(function, parent, identifier, device=gpu_uuid)
    except NvmlCallError as error:
        if error.code in _GONE:
            return None
        raise


def _destroy(function: str, instance: Any, what: str) -> None:
    try:
        call(function, instance, device=what)
    except NvmlCallError as error:
        if error.code in _GONE:
            return
        if error.code == Return.IN_USE:
            raise InstanceInUse(
                f"{what} is in use: a process holds it, or it still has compute instances",
                hint="it is tried again; nvidia-smi shows the process",
            ) from error
        raise


def _undo(function: str, instance: Any, what: str) -> None:
    """Destroy what was just made and cannot be named to the caller."""
    try:
        call(function, instance, device=what)
    except HardwareError as error:
        logger.warning("a %s that could not be read is left behind: %s", what, error)
