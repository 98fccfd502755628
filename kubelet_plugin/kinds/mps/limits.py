"""Settings that cannot be had of a claim's devices, found before anything is changed. Pure.

What a limit's index means is known where all UUIDs are: of whole GPUs, and of MIG devices that are there already. Of
MIG devices that the claim makes it is not, so a limit by index has to fit each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from api.claim_config import PERCENTAGES
from dra_driver.hardware.model import Gpu
from kubelet_plugin.kinds.mps.member import Member, memory_mib
from kubelet_plugin.kinds.mps.settings import Settings
from kubelet_plugin.prepare.kind import Refusal

_MULTI_USER_FROM = 7  # compute capability, major: Volta (as NVIDIA's driver has it)

_CONFIG = "sharing.mpsConfig"
_PERCENTAGE = f"{_CONFIG}.defaultActiveThreadPercentage"
_LIMIT = f"{_CONFIG}.defaultPinnedDeviceMemoryLimit"
_LIMITS = f"{_CONFIG}.defaultPerDevicePinnedMemoryLimit"
_MULTI_USER = f"{_CONFIG}.multiUser"


@dataclass(frozen=True, slots=True)
class MpsDevice:
    """``uuid``: None where it is not known before the device is made."""

    member: Member
    gpu: Gpu
    uuid: str | None

    @property
    def memory_mib(self) -> int | None:
        return memory_mib(self.member, self.gpu)

    @property
    def title(self) -> str:
        return self.member.device if self.uuid is None else f"{self.member.device} ({self.uuid})"


def refused_settings(settings: Settings, devices: Sequence[MpsDevice]) -> Refusal | None:
    """Why ``devices``, which are one group, cannot have ``settings``."""
    return next(_refused(settings, devices), None)


def _refused(settings: Settings, devices: Sequence[MpsDevice]) -> Iterator[Refusal]:
    if settings.active_thread_percentage == 0:
        why = f"must be {PERCENTAGES}, not 0"
        yield Refusal(_PERCENTAGE, "0", "a client needs a part of the multiprocessors; leave it out for all", why=why)
    if settings.multi_user:
        yield from _refused_multi_user(devices)
    means = _meanings(devices)
    yield from _refused_keys(settings, means, devices)
    named = {
        device.member for key, _limit in settings.limits_mib if len(means.get(key, ())) == 1 for device in means[key]
    }
    if settings.limit_mib is not None:
        others = [device for device in devices if device.member not in named]
        yield from _above(_LIMIT, settings.limit_mib, others)


def _refused_multi_user(devices: Sequence[MpsDevice]) -> Iterator[Refusal]:
    for device in devices:
        capability = device.gpu.cuda_compute_capability
        if device.member.mig is None and int(capability.partition(".")[0]) < _MULTI_USER_FROM:
            advice = (
                f"{device.title} is a {device.gpu.product_name} of compute capability {capability}, and clients of "
                f"several users at once need {_MULTI_USER_FROM}.0: remove it, or ask for a newer GPU"
            )
            yield Refusal(_MULTI_USER, "true", advice)


def _refused_keys(
    settings: Settings, means: Mapping[str, Sequence[MpsDevice]], devices: Sequence[MpsDevice]
) -> Iterator[Refusal]:
    seen: dict[Member, str] = {}
    for key, limit in settings.limits_mib:
        if key not in means:
            why = f"the key is neither the index nor the UUID of a device that this is for: there {_are(devices)}"
            yield Refusal(f'{_LIMITS}["{key}"]', f"{limit}Mi", _allowed_keys(devices), why=why)
            continue
        yield from _above(f'{_LIMITS}["{key}"]', limit, means[key])
        if len(means[key]) == 1:
            (device,) = means[key]
            if device.member in seen:
                advice = f'it is the same device as "{seen[device.member]}", {device.title}: give it one limit'
                yield Refusal(f'{_LIMITS}["{key}"]', f"{limit}Mi", advice)
            seen[device.member] = key


def _above(field: str, limit: int, devices: Sequence[MpsDevice]) -> Iterator[Refusal]:
    for device in devices:
        most = device.memory_mib
        if most is not None and limit > most:
            yield Refusal(field, f"{limit}Mi", f"{device.title} has {most}Mi: ask for 1Mi to {most}Mi")


def _meanings(devices: Sequence[MpsDevice]) -> Mapping[str, Sequence[MpsDevice]]:
    """Which devices a key may mean."""
    by_uuid = {device.uuid: (device,) for device in devices if device.uuid is not None}
    if len(by_uuid) == len(devices):
        ordered = [by_uuid[uuid] for uuid in sorted(by_uuid)]
        return {**by_uuid, **{str(index): device for index, device in enumerate(ordered)}}
    return {**by_uuid, **{str(index): tuple(devices) for index in range(len(devices))}}


def _allowed_keys(devices: Sequence[MpsDevice]) -> str:
    indices = f'"0" to "{len(devices) - 1}"' if len(devices) > 1 else '"0"'
    uuids = sorted(device.uuid for device in devices if device.uuid is not None)
    if len(uuids) < len(devices):
        return f"use {indices}: the claim makes its MIG devices, so their UUIDs are not known before"
    return f"use {indices}, or {', '.join(uuids)}"


def _are(devices: Sequence[MpsDevice]) -> str:
    return "is one" if len(devices) == 1 else f"are {len(devices)}"
