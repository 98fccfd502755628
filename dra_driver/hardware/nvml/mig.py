"""Reads the MIG side of one GPU: mode, profile table with placements, existing instances. It changes nothing.

Profiles are enumerated by NVML's own index until it answers "invalid argument", so that a profile that a newer driver
adds is found without a new release of ours. ``id`` (the hardware's) and ``enum_index`` (NVML's) are different numbers.
"""

from __future__ import annotations

from ctypes import byref, c_uint
from typing import Any

from dra_driver.hardware.model import ComputeInstance, GpuInstance, MigPlacement, MigProfile, MigState
from dra_driver.hardware.nvml.binding import array, call, query
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.errors import NvmlCallError

_PROFILE_INFO_VERSION = 2  # the first that carries the profile's name
_MOST_PROFILES = 256  # a library that never says "invalid argument" must not hold us forever


def read_mig(handle: Any, device: str) -> MigState | None:
    """MIG of a GPU; None when the product has none."""
    mode = query("nvmlDeviceGetMigMode", handle, device=device)
    if mode is None:
        return None
    current, pending = mode
    profiles = _profiles(handle, device)
    if not current and not profiles:
        # Some products without MIG answer the mode query all the same. A MIG product lists profiles even with MIG off.
        return None
    return MigState(
        enabled=bool(current),
        pending=bool(pending),
        profiles=profiles,
        instances=_instances(handle, device, profiles) if current else (),
    )


def _profiles(handle: Any, device: str) -> tuple[MigProfile, ...]:
    found: list[MigProfile] = []
    for enum_index in range(_MOST_PROFILES):
        try:
            info = query(
                "nvmlDeviceGetGpuInstanceProfileInfo", handle, enum_index, _PROFILE_INFO_VERSION, device=device
            )
        except NvmlCallError as error:
            if error.code == Return.INVALID_ARGUMENT:
                break
            raise
        if info is None:
            continue
        found.append(
            MigProfile(
                name=str(info.name).removeprefix("MIG "),
                id=int(info.id),
                enum_index=enum_index,
                slice_count=int(info.sliceCount),
                instance_count=int(info.instanceCount),
                memory_mib=int(info.memorySizeMB),
                multiprocessors=int(info.multiprocessorCount),
                copy_engines=int(info.copyEngineCount),
                decoders=int(info.decoderCount),
                encoders=int(info.encoderCount),
                jpeg_engines=int(info.jpegCount),
                ofa_engines=int(info.ofaCount),
                placements=_placements(handle, device, int(info.id)),
                p2p_supported=bool(info.isP2pSupported),
            )
        )
    return tuple(found)


def _placements(handle: Any, device: str, profile_id: int) -> tuple[MigPlacement, ...]:
    function = "nvmlDeviceGetGpuInstancePossiblePlacements"
    count = c_uint(0)
    call(function, handle, profile_id, None, byref(count), device=device)
    buffer = array("c_nvmlGpuInstancePlacement_t", count.value)
    call(function, handle, profile_id, buffer, byref(count), device=device)
    return tuple(sorted(MigPlacement(start=int(each.start), size=int(each.size)) for each in buffer[: count.value]))


def _instances(handle: Any, device: str, profiles: tuple[MigProfile, ...]) -> tuple[GpuInstance, ...]:
    """Every GPU instance, also one without a compute instance, which has no MIG device."""
    compute = _compute_instances(handle, device)
    found = (
        GpuInstance(
            id=int(info.id),
            profile_id=profile.id,
            profile_name=profile.name,
            placement=MigPlacement(start=int(info.placement.start), size=int(info.placement.size)),
            compute_instances=tuple(sorted(compute.get(int(info.id), ()), key=lambda each: each.id)),
        )
        for profile in profiles
        for info in _gpu_instances(handle, device, profile)
    )
    return tuple(sorted(found, key=lambda each: each.placement))


def _compute_instances(handle: Any, device: str) -> dict[int, list[ComputeInstance]]:
    """The MIG devices, by the id of their GPU instance."""
    found: dict[int, list[ComputeInstance]] = {}
    for index in range(int(query("nvmlDeviceGetMaxMigDeviceCount", handle, device=device) or 0)):
        try:
            mig = call("nvmlDeviceGetMigDeviceHandleByIndex", handle, index, device=device)
        except NvmlCallError as error:
            if error.code in (Return.NOT_FOUND, Return.INVALID_ARGUMENT):
                continue
            raise
        mig_device = f"MIG device {index} of {device}"
        gpu_instance = int(call("nvmlDeviceGetGpuInstanceId", mig, device=mig_device))
        found.setdefault(gpu_instance, []).append(
            ComputeInstance(
                id=int(call("nvmlDeviceGetComputeInstanceId", mig, device=mig_device)),
                uuid=str(call("nvmlDeviceGetUUID", mig, device=mig_device)),
                slices=int(call("nvmlDeviceGetAttributes_v2", mig, device=mig_device).computeInstanceSliceCount),
            )
        )
    return found


def _gpu_instances(handle: Any, device: str, profile: MigProfile) -> list[Any]:
    count = c_uint(0)
    buffer = array("c_nvmlGpuInstance_t", max(profile.instance_count, 1))
    call("nvmlDeviceGetGpuInstances", handle, profile.id, buffer, byref(count), device=device)
    return [call("nvmlGpuInstanceGetInfo", each, device=device) for each in buffer[: count.value]]
