"""Records of ours for claims that another driver has prepared. Pure.

From NVIDIA's checkpoint: a finished claim becomes a prepared one, with the steps whose undoing is what NVIDIA's driver
would have done: its CDI file, the time slices that it set, and, where claims make MIG devices, their instances. A begun
claim becomes a begun one, which the start of the plugin rolls back as NVIDIA's driver does: what a finished claim holds
is left alone.

From a CDI file without any record: our own record is on disk before the file is written and goes after it has gone, so
somebody else wrote it, and a container may have been started with it. Its claim is held, by what the file says, until
the kubelet unprepares it. Only a claim that the kubelet provably does not have, or whose file an administrator has
removed, is given up: it is left half unprepared, which the start of the plugin then finishes. When drivers were changed
without handing over, the first is so of other claims, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from dra_driver.devices.naming import MigName, minor_of, read_name
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.model import PreparedDevice
from kubelet_plugin.prepare.cdi_file import CDI_FILE
from kubelet_plugin.takeover.kubelet_claims import KubeletClaims
from kubelet_plugin.takeover.nvidia_checkpoint import (
    DeviceType,
    NvidiaCheckpoint,
    NvidiaClaim,
    NvidiaDevice,
    NvidiaState,
)

_Spot = tuple[int, int, int]  # minor of the GPU, profile id, placement start


@dataclass(frozen=True, slots=True)
class Here:
    """The node as it is now. ``machine``: None while the hardware does not answer. ``kubelet`` was read after
    ``entries``: it writes a claim down before it asks for it, so what it lacks then is over.

    ``mend`` gives a lost record the steps that its devices' names stand for (``prepare.kinds.Kinds.mended``).
    """

    cdi_id: Callable[[str, str, str | None], str]  # claim UID, device, share id
    boot_id: str
    entries: Mapping[str, ClaimEntry]
    kubelet: KubeletClaims
    machine: Machine | None
    mend: Callable[[ClaimEntry], ClaimEntry]


@dataclass(frozen=True, slots=True)
class Adopted:
    """New records, and a sentence about each thing that their unprepare will not undo."""

    entries: tuple[ClaimEntry, ...] = ()
    left_undone: tuple[str, ...] = ()


def adopt(found: NvidiaCheckpoint, here: Here) -> Adopted:
    """Records for the claims in ``found`` of which we have none, or only that they exist.

    Of an earlier boot nothing is left: its containers are gone, and the kubelet prepares again what it still wants.
    """
    if found.boot_id and found.boot_id != here.boot_id:
        return Adopted()
    finished = {device.name for claim in found.claims for device in claim.devices}
    finished |= {device.device_name for entry in _whole_records(here) for device in entry.prepared}
    made_by_hand = _gpus_with_instances_of_nobody(found, here)
    entries, left_undone = [], []
    for claim in found.claims:
        known = here.entries.get(claim.uid)
        if known is not None and known.boot_id == here.boot_id and known.state is not ClaimState.RECORD_LOST:
            continue
        if claim.state is NvidiaState.STARTED:
            entries.append(_begun(claim, finished, made_by_hand, here))
        else:
            entries.append(_finished(claim, made_by_hand, here))
            left_undone += _left_undone(claim)
    return Adopted(tuple(entries), tuple(left_undone))


def adopt_files(lost: Iterable[ClaimEntry], kubelet: KubeletClaims) -> tuple[ClaimEntry, ...]:
    """Records for CDI files of claims that nobody has a record of; ``lost`` is what the files say."""
    return tuple(replace(entry, ref=kubelet.ref(entry.ref.uid)) for entry in lost)


def give_up(here: Here, files: Collection[str], *, changed: bool) -> tuple[ClaimEntry, ...]:
    """Claims that are over and that nobody will unprepare: the kubelet does not have them. ``changed``: NVIDIA's driver
    had the node until now; then that may be so of any claim, since each driver is silent about claims of the other.

    Else it can be so only of claims known from their CDI files, and then an administrator may say it by removing the
    file. ``files``: UIDs of the claims that have one. While the hardware does not answer, what a lost record has left
    cannot be told.
    """
    return tuple(
        replace(here.mend(entry), state=ClaimState.UNPREPARE_STARTED)
        for entry in here.entries.values()
        if entry.boot_id == here.boot_id and _is_over(entry, here, files, changed=changed)
    )


def _is_over(entry: ClaimEntry, here: Here, files: Collection[str], *, changed: bool) -> bool:
    forgotten = here.kubelet.has_forgotten(entry.ref.uid)
    if entry.state is ClaimState.COMPLETED:
        return changed and forgotten
    is_lost = entry.state is ClaimState.RECORD_LOST and here.machine is not None
    return is_lost and (forgotten or entry.ref.uid not in files)


def _finished(claim: NvidiaClaim, made_by_hand: frozenset[str], here: Here) -> ClaimEntry:
    admin = {(result.device, result.share_id) for result in claim.results if result.admin_access}
    devices = tuple(
        HeldDevice(_answer(device), _gpu_uuid(device, here), (device.name, device.share_id) in admin)
        for device in claim.devices
    )
    entry = _entry(claim, ClaimState.COMPLETED, devices, here)
    if not _is_ours_to_mend(claim, here):
        return replace(entry, state=ClaimState.RECORD_LOST)
    made = [held for held in devices if _is_mig(held) and held.gpu_uuid not in made_by_hand]
    sliced = [held for held in devices if claim.time_sliced and not _is_mig(held)]
    return _with_steps(entry, [*made, *sliced], here)


def _begun(claim: NvidiaClaim, finished: set[str], made_by_hand: frozenset[str], here: Here) -> ClaimEntry:
    devices = tuple(
        HeldDevice(
            PreparedDevice(
                (result.request.partition("/")[0],),
                result.pool,
                result.device,
                (here.cdi_id(claim.uid, result.device, result.share_id),),
                result.share_id,
            ),
            _uuid_by_name(result.device, here.machine),
            result.admin_access,
        )
        for result in claim.results
    )
    entry = _entry(claim, ClaimState.PREPARE_STARTED, devices, here)
    if here.machine is None and any(_is_mig(held) for held in devices):
        return replace(entry, state=ClaimState.RECORD_LOST)  # what it has made cannot be told now
    made = [
        held
        for held in devices
        if held.prepared.device_name not in finished
        and not held.admin_access
        and not (_is_mig(held) and held.gpu_uuid in made_by_hand)
    ]
    return _with_steps(entry, made, here)


def _entry(claim: NvidiaClaim, state: ClaimState, devices: tuple[HeldDevice, ...], here: Here) -> ClaimEntry:
    ref = here.kubelet.ref(claim.uid, claim.namespace, claim.name)
    return ClaimEntry(ref, state, here.boot_id, devices, (StepRecord(CDI_FILE),))


def _with_steps(entry: ClaimEntry, made: Iterable[HeldDevice], here: Here) -> ClaimEntry:
    """``entry`` with the steps that changed the hardware for the devices ``made``, and the one of its CDI file."""
    mended = here.mend(replace(entry, state=ClaimState.RECORD_LOST, devices=tuple(made)))
    return replace(entry, steps=mended.steps)


def _answer(device: NvidiaDevice) -> PreparedDevice:
    requests = tuple(dict.fromkeys(request.partition("/")[0] for request in device.requests))
    return PreparedDevice(requests, device.pool, device.name, device.cdi_ids, device.share_id)


def _is_ours_to_mend(claim: NvidiaClaim, here: Here) -> bool:
    """Whether the claim can be held as one of ours, whose CDI file is written anew when it differs."""
    if claim.mps_daemons or any(device.type is DeviceType.VFIO for device in claim.devices):
        return False
    changed = claim.time_sliced or any(device.type is DeviceType.MIG for device in claim.devices)
    return here.machine is not None or not changed


def _left_undone(claim: NvidiaClaim) -> list[str]:
    found = [
        f"MPS control daemon of claim {claim.uid}: delete Deployment mps-control-daemon-{daemon} in the namespace of "
        "NVIDIA's driver when the claim is gone, and set the GPU's compute mode back"
        for daemon in claim.mps_daemons
    ]
    found += [
        f"{device.name} of claim {claim.uid} stays bound to vfio-pci"
        for device in claim.devices
        if device.type is DeviceType.VFIO
    ]
    return found


def _gpus_with_instances_of_nobody(found: NvidiaCheckpoint, here: Here) -> frozenset[str]:
    """UUIDs of GPUs that have instances of no claim. NVIDIA's driver destroys such ones when it makes MIG devices for
    claims; so there it did not, and what its claims have was made by an administrator, as those instances were."""
    names = {result.device for claim in found.claims for result in claim.results}
    names |= {device.name for claim in found.claims for device in claim.devices}
    names |= {device.device_name for entry in here.entries.values() for device in entry.prepared}
    spots = {spot for name in names if (spot := _spot(name)) is not None}
    return frozenset(
        gpu.uuid
        for gpu in (here.machine.gpus if here.machine else ())
        if gpu.mig is not None
        and any(
            (gpu.minor, instance.profile_id, instance.placement.start) not in spots for instance in gpu.mig.instances
        )
    )


def _whole_records(here: Here) -> list[ClaimEntry]:
    return [
        entry
        for entry in here.entries.values()
        if entry.boot_id == here.boot_id and entry.state is not ClaimState.RECORD_LOST
    ]


def _gpu_uuid(device: NvidiaDevice, here: Here) -> str:
    return device.gpu_uuid or _uuid_by_name(device.name, here.machine)


def _uuid_by_name(device: str, machine: Machine | None) -> str:
    gpu = _gpu(device, machine)
    return gpu.uuid if gpu else ""


def _gpu(device: str, machine: Machine | None) -> Gpu | None:
    return None if machine is None else machine.with_minor(minor_of(device))


def _is_mig(held: HeldDevice) -> bool:
    return _spot(held.prepared.device_name) is not None


def _spot(device: str) -> _Spot | None:
    name = read_name(device)
    return (name.minor, name.profile_id, name.start) if isinstance(name, MigName) else None
