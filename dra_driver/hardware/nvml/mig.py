"""Reads the MIG side of one GPU: mode, profile table with placements, existing instances. It changes nothing.

Instances are found from two sides: GPU instances by profile (only so is one without a compute instance seen), compute
instances by MIG device. They may come and go meanwhile; then the reading begins anew.

Profiles are enumerated by NVML's own index until it answers "invalid argument", so that a profile that a newer driver
adds is found without a new release of ours. ``id`` (the hardware's) and ``enum_index`` (NVML's) are different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import byref, c_uint
from typing import Any

from dra_driver.hardware.model import ComputeInstance, GpuInstance, MigPlacement, MigProfile, MigState
from dra_driver.hardware.nvml.binding import array, call, query
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.errors import NvmlCallError

_PROFILE_INFO_VERSION = 2  # the first that carries the profile's name
_MOST_PROFILES = 256  # a library that never says "invalid argument" must not hold us forever
_MOST_READINGS = 5
_CHANGED_MEANWHILE = frozenset({Return.NOT_FOUND, Return.INVALID_ARGUMENT, Return.NOT_SUPPORTED})


class ProfileTables:
    """The profiles of GPUs, each table read once: it is the product's and the driver's, so it stays for as long as NVML
    is initialised. Only MIG mode may show another one: drivers before 550 list no profiles with it off."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], tuple[MigProfile, ...]] = {}

    def forget(self) -> None:
        self._known = {}

    def of(self, handle: Any, device: str, uuid: str, *, enabled: bool) -> tuple[MigProfile, ...]:
        """Of the GPU ``uuid``, which errors call ``device``, while its MIG mode is as it was just now."""
        known = self._known.get((uuid, enabled))
        if known is not None:
            return known
        profiles = _profiles(handle, device)
        if (read_mode(handle, device) or (False, False))[0] == enabled:
            self._known[uuid, enabled] = profiles
        return profiles


def read_mig(handle: Any, device: str, uuid: str, tables: ProfileTables) -> MigState | None:
    """MIG of a GPU; None when the product has none."""
    mode = read_mode(handle, device)
    if mode is None:
        return None
    profiles = tables.of(handle, device, uuid, enabled=mode[0])
    if not mode[0] and not profiles:
        # Some products without MIG answer the mode query all the same. A MIG product lists profiles even with MIG off.
        return None
    (enabled, pending), instances = _settled(handle, device, profiles)
    return MigState(enabled=enabled, pending=pending, profiles=profiles, instances=instances)


def read_mode(handle: Any, device: str) -> tuple[bool, bool] | None:
    """MIG mode now and after the next reset; None when the product has no MIG."""
    mode = query("nvmlDeviceGetMigMode", handle, device=device)
    return None if mode is None else (bool(mode[0]), bool(mode[1]))


def read_instances(handle: Any, device: str, profiles: Sequence[MigProfile]) -> tuple[GpuInstance, ...]:
    """The GPU instances with their compute instances, by placement; none where MIG is off or unknown."""
    return _settled(handle, device, profiles)[1]


def _settled(
    handle: Any, device: str, profiles: Sequence[MigProfile]
) -> tuple[tuple[bool, bool], tuple[GpuInstance, ...]]:
    """Mode and instances of one moment, or nearly: tried again when an instance went while it was looked at."""
    for _ in range(_MOST_READINGS - 1):
        try:
            return _mode_and_instances(handle, device, profiles)
        except NvmlCallError as error:
            if error.code not in _CHANGED_MEANWHILE:
                raise
    return _mode_and_instances(handle, device, profiles)


def _mode_and_instances(
    handle: Any, device: str, profiles: Sequence[MigProfile]
) -> tuple[tuple[bool, bool], tuple[GpuInstance, ...]]:
    mode = read_mode(handle, device) or (False, False)
    return mode, _instances(handle, device, profiles) if mode[0] else ()


def _profiles(handle: Any, device: str) -> tuple[MigProfile, ...]:
    return tuple(
        MigProfile(
            name=_name(info),
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
        for enum_index, info in _profile_infos(handle, device)
    )


def _profile_infos(handle: Any, device: str) -> Iterator[tuple[int, Any]]:
    """NVML's profile information, with its own index."""
    function = "nvmlDeviceGetGpuInstanceProfileInfo"
    for enum_index in range(_MOST_PROFILES):
        try:
            info = query(function, handle, enum_index, _PROFILE_INFO_VERSION, device=device)
        except NvmlCallError as error:
            if error.code == Return.INVALID_ARGUMENT:
                return
            raise
        if info is not None:
            yield enum_index, info


def _name(info: Any) -> str:
    return str(info.name).removeprefix("MIG ")


def _placements(handle: Any, device: str, profile_id: int) -> tuple[MigPlacement, ...]:
    function = "nvmlDeviceGetGpuInstancePossiblePlacements"
    count = c_uint(0)
    call(function, handle, profile_id, None, byref(count), device=device)
    buffer = array("c_nvmlGpuInstancePlacement_t", count.value)
    call(function, handle, profile_id, buffer, byref(count), device=device)
    return tuple(sorted(MigPlacement(start=int(each.start), size=int(each.size)) for each in buffer[: count.value]))


def _instances(handle: Any, device: str, profiles: Sequence[MigProfile]) -> tuple[GpuInstance, ...]:
    listed = [(profile, info) for profile in profiles for info in _gpu_instances(handle, device, profile)]
    compute = _compute_instances(handle, device, {int(info.id) for _profile, info in listed})
    found = (
        GpuInstance(
            id=int(info.id),
            profile_id=profile.id,
            profile_name=profile.name,
            placement=MigPlacement(start=int(info.placement.start), size=int(info.placement.size)),
            compute_instances=tuple(sorted(compute.get(int(info.id), ()), key=lambda each: each.id)),
        )
        for profile, info in listed
    )
    return tuple(sorted(found, key=lambda each: each.placement))


def _compute_instances(handle: Any, device: str, gpu_instances: set[int]) -> dict[int, list[ComputeInstance]]:
    """The MIG devices of ``gpu_instances``, by the id of their GPU instance; those of others are passed over.

    Asking for every possible MIG device takes longer than all else (some seconds on a GPU under load), so it ends when
    no GPU instance has compute slices left that another MIG device could have.
    """
    found: dict[int, list[ComputeInstance]] = {}
    unfinished = set(gpu_instances)
    for index in range(_most_mig_devices(handle, device) if unfinished else 0):
        try:
            mig = call("nvmlDeviceGetMigDeviceHandleByIndex", handle, index, device=device)
        except NvmlCallError as error:
            if error.code in (Return.NOT_FOUND, Return.INVALID_ARGUMENT):
                continue
            raise
        mig_device = f"MIG device {index} of {device}"
        gpu_instance = int(call("nvmlDeviceGetGpuInstanceId", mig, device=mig_device))
        if gpu_instance not in gpu_instances:
            continue
        compute = int(call("nvmlDeviceGetComputeInstanceId", mig, device=mig_device))
        attributes = call("nvmlDeviceGetAttributes_v2", mig, device=mig_device)
        slices = int(attributes.computeInstanceSliceCount)
        whole = slices == int(attributes.gpuInstanceSliceCount)
        found.setdefault(gpu_instance, []).append(
            ComputeInstance(
                id=compute,
                uuid=str(call("nvmlDeviceGetUUID", mig, device=mig_device)),
                slices=slices,
                start=0 if whole else _compute_start(handle, gpu_instance, compute, mig_device),
            )
        )
        if sum(each.slices for each in found[gpu_instance]) >= int(attributes.gpuInstanceSliceCount):
            unfinished.discard(gpu_instance)
        if not unfinished:
            break
    return found


def _most_mig_devices(handle: Any, device: str) -> int:
    return int(query("nvmlDeviceGetMaxMigDeviceCount", handle, device=device) or 0)


def _compute_start(handle: Any, gpu_instance: int, compute_instance: int, device: str) -> int:
    parent = call("nvmlDeviceGetGpuInstanceById", handle, gpu_instance, device=device)
    compute = call("nvmlGpuInstanceGetComputeInstanceById", parent, compute_instance, device=device)
    return int(call("nvmlComputeInstanceGetInfo", compute, device=device).placement.start)


def _gpu_instances(handle: Any, device: str, profile: MigProfile) -> list[Any]:
    count = c_uint(0)
    buffer = array("c_nvmlGpuInstance_t", max(profile.instance_count, 1))
    call("nvmlDeviceGetGpuInstances", handle, profile.id, buffer, byref(count), device=device)
    return [call("nvmlGpuInstanceGetInfo", each, device=device) for each in buffer[: count.value]]
