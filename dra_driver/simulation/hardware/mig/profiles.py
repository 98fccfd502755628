"""The profile table of a simulated product: GPU instance profiles, by NVML's enum index and by the hardware's id."""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, number, require_version, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.description import ProfileDescription
from dra_driver.simulation.hardware.handles import Kind
from dra_driver.simulation.hardware.mig.arrays import write_placements

_PROFILE_COUNT = 18  # NVML_GPU_INSTANCE_PROFILE_COUNT of driver 580
_PROFILE_INFO_V2 = 0x02000098  # nvmlGpuInstanceProfileInfo_v2


def profiles_of(call: DeviceCall) -> tuple[ProfileDescription, ...]:
    profiles = call.product.mig_profiles
    if profiles is None:
        raise Refused(Return.NOT_SUPPORTED)
    return profiles


def profile_by_id(call: DeviceCall, profile_id: Any) -> ProfileDescription:
    profiles_of(call)
    found = call.product.profile(number(profile_id))
    if found is None:
        raise Refused(Return.INVALID_ARGUMENT)
    return found


def require_mig_on(call: DeviceCall) -> None:
    if call.product.mig_profiles is None or not call.gpu.mig_enabled:
        raise Refused(Return.NOT_SUPPORTED)


def _profile_by_enum(call: DeviceCall, profile: Any) -> ProfileDescription:
    wanted = number(profile)
    if not 0 <= wanted < _PROFILE_COUNT:
        raise Refused(Return.INVALID_ARGUMENT)
    for each in profiles_of(call):
        if each.enum_index == wanted:
            return each
    raise Refused(Return.NOT_SUPPORTED)


def _fill(structure: Any, profile: ProfileDescription) -> None:
    structure.id = profile.id
    structure.isP2pSupported = int(profile.p2p)
    structure.sliceCount = profile.slices
    structure.instanceCount = profile.instances
    structure.multiprocessorCount = profile.multiprocessors
    structure.copyEngineCount = profile.copy_engines
    structure.decoderCount = profile.decoders
    structure.encoderCount = profile.encoders
    structure.jpegCount = profile.jpeg_engines
    structure.ofaCount = profile.ofa_engines
    structure.memorySizeMB = profile.memory_mib


def _fill_v2(info: Any, profile: ProfileDescription) -> None:
    structure = target(info)
    require_version(structure, _PROFILE_INFO_V2)
    _fill(structure, profile)
    structure.name = f"MIG {profile.name}"


def _info(call: DeviceCall, profile: Any, info: Any) -> None:
    _fill(target(info), _profile_by_enum(call, profile))


def _info_v(call: DeviceCall, profile: Any, info: Any) -> None:
    _fill_v2(info, _profile_by_enum(call, profile))


def _info_by_id_v(call: DeviceCall, profile_id: Any, info: Any) -> None:
    _fill_v2(info, profile_by_id(call, profile_id))


def _possible_placements(call: DeviceCall, profile_id: Any, placements: Any, count: Any) -> None:
    found = profile_by_id(call, profile_id).placements
    write_placements(placements, count, found.starts, found.size)


FUNCTIONS: FunctionTable = {
    "nvmlDeviceGetGpuInstanceProfileInfo": Function(_info, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceProfileInfoV": Function(_info_v, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceProfileInfoByIdV": Function(_info_by_id_v, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2": Function(_possible_placements, (Kind.GPU,)),
}
