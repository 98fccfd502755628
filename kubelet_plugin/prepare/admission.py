"""May this claim have its devices, here and now? Everything that is checked before anything is changed. Pure.

Devices have to exist, configurations to fit, and a device that another claim holds is refused, whatever the scheduler
says: claims are force-deleted, and two schedulers may run (kubernetes/kubernetes#141471). Devices that cannot exist at
once keep each other out. Admin access is exempt, and never keeps others out.

Whether the hardware is ready for it is the makers' question, when they plan: that changes nothing about whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.errors import ClaimError, DeviceInUse
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import AllocatedClaim, AllocatedDevice
from kubelet_plugin.claims.configs import DeviceConfig, conflicting, resolve_configs, unsupported
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.prepare.kind import ClaimDevice, Others, Place
from kubelet_plugin.prepare.kinds import Kinds, exclude_each_other


class OverlappingDevices(ClaimError):
    """One claim was allocated devices that cover each other; trying again cannot help."""

    reason = "OverlappingDevices"
    retryable = False


@dataclass(frozen=True, slots=True)
class AdmittedClaim:
    """A claim that may be prepared. ``before`` is what the checkpoint has of it."""

    claim: AllocatedClaim
    devices: tuple[ClaimDevice, ...]
    before: ClaimEntry | None
    others: Others


def admit(
    claim: AllocatedClaim, machine: Machine, entries: Mapping[str, ClaimEntry], kinds: Kinds, policy: NodePolicy
) -> AdmittedClaim:
    """Raises the ``DriverError`` that says why not. ``entries`` is the checkpoint, by claim UID.

    A claim that is prepared already keeps what it has, whatever gates and policy say since.
    """
    before = entries.get(claim.ref.uid)
    is_new = before is None or not (before.is_prepared(policy.boot_id) and before.device_keys == claim.device_keys)
    found = tuple(kinds.find(device.device, machine) for device in claim.devices)
    configs = resolve_configs(claim, [kind.takes for kind, _place in found], policy.gates if is_new else None)
    devices = tuple(
        _wrapped(ClaimDevice(claim.ref, allocated, kind, place, config.config), kinds)
        for allocated, (kind, place), config in zip(claim.devices, found, configs, strict=True)
    )
    # What an earlier boot prepared, no process uses any more.
    others = Others(kinds.others(entries, claim.ref.uid, policy.boot_id, lambda: machine), machine)
    for position, device in enumerate(devices):
        for entry in others.entries:
            _refuse_held(device.allocated, device.place, entry, kinds, machine)
        for beside in devices[:position]:
            _refuse_beside(claim, device, beside)
    if is_new:
        for device, config in zip(devices, configs, strict=True):
            _refuse_config(claim, device, config, devices, others, kinds)
    return AdmittedClaim(claim, devices, before, others)


def _wrapped(device: ClaimDevice, kinds: Kinds) -> ClaimDevice:
    if device.allocated.admin_access:
        return device
    return replace(device, wrappers=tuple(wrapper for wrapper in kinds.wrappers if wrapper.wraps(device)))


def _refuse_config(
    claim: AllocatedClaim,
    device: ClaimDevice,
    config: DeviceConfig,
    devices: Sequence[ClaimDevice],
    others: Others,
    kinds: Kinds,
) -> None:
    if device.allocated.admin_access:
        return
    honoured = any(wrapper.honours(device.config) for wrapper in device.wrappers)
    beside = tuple(other for other in devices if other is not device)
    refusal = device.kind.refuses(device.config, honoured=honoured) or next(
        filter(None, (wrapper.refuses(device, beside, others) for wrapper in kinds.wrappers)), None
    )
    if refusal is not None and refusal.holder:
        raise conflicting(claim, config, refusal.field, refusal.value, refusal.holder, refusal.advice)
    if refusal is not None:
        raise unsupported(
            claim,
            config,
            refusal.field,
            refusal.why or f"{refusal.value} is not available on this node",
            refusal.advice,
        )


def _refuse_held(device: AllocatedDevice, place: Place, entry: ClaimEntry, kinds: Kinds, machine: Machine) -> None:
    if device.admin_access:
        return
    held = next((held for held in entry.devices if kinds.collide(device, place, held, machine)), None)
    if held is None:
        return
    theirs = held.prepared.device_name
    which = f"device {device.device}"
    if theirs != device.device:
        which += f" cannot be used beside {theirs}, which"
    lost = entry.state is ClaimState.RECORD_LOST
    raise DeviceInUse(
        f"{which} is held by claim {entry.holder} on this node"
        + (", a claim known only from its CDI file" if lost else ""),
        hint="it becomes free when the last pod with that claim has ended on this node; "
        "if that pod was force-deleted, wait for the kubelet to clean up"
        + ("; if there is no such pod, remove the CDI file and restart the plugin's pod" if lost else ""),
    )


def _refuse_beside(claim: AllocatedClaim, device: ClaimDevice, beside: ClaimDevice) -> None:
    mine, other = device.allocated, beside.allocated
    if mine.admin_access or other.admin_access or mine.device == other.device:
        return
    if exclude_each_other(device.place, beside.place):
        raise OverlappingDevices(
            f"claim {claim.ref} was allocated {other.device} and {mine.device}, which cannot exist at once",
            hint="a scheduler without partitionable devices (feature gate DRAPartitionableDevices) did that; "
            "delete the pod, and switch the gate on",
        )
