"""May this claim have its devices, here and now? Everything that is checked before anything is changed. Pure.

Devices have to exist, configurations to fit, and a device that another claim holds is refused, whatever the scheduler
says: claims are force-deleted, and two schedulers may run (kubernetes/kubernetes#141471). Devices that cannot exist at
once keep each other out. Admin access is exempt, and never keeps others out.

Whether the hardware is ready for it is the makers' question, when they plan: that changes nothing about whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dra_driver.errors import ClaimError, DeviceInUse
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import AllocatedClaim, AllocatedDevice
from kubelet_plugin.claims.configs import DeviceConfig, resolve_configs, unsupported
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.prepare.kind import ClaimDevice, Place
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


def admit(
    claim: AllocatedClaim, machine: Machine, entries: Mapping[str, ClaimEntry], kinds: Kinds, policy: NodePolicy
) -> AdmittedClaim:
    """Raises the ``DriverError`` that says why not. ``entries`` is the checkpoint, by claim UID."""
    found = tuple(kinds.find(device.device, machine) for device in claim.devices)
    configs = resolve_configs(claim, [kind.takes for kind, _place in found], policy.gates)
    devices = tuple(
        _wrapped(claim, ClaimDevice(allocated, kind, place, config.config), config, kinds)
        for allocated, (kind, place), config in zip(claim.devices, found, configs, strict=True)
    )
    others = [entry for entry in entries.values() if entry.ref.uid != claim.ref.uid and entry.boot_id == policy.boot_id]
    for position, device in enumerate(devices):
        for entry in others:  # what an earlier boot prepared, no process uses any more
            _refuse_held(device.allocated, device.place, entry, kinds, machine)
        for beside in devices[:position]:
            _refuse_beside(claim, device, beside)
    return AdmittedClaim(claim, devices, entries.get(claim.ref.uid))


def _wrapped(claim: AllocatedClaim, device: ClaimDevice, found: DeviceConfig, kinds: Kinds) -> ClaimDevice:
    wrappers = tuple(wrapper for wrapper in kinds.wrappers if wrapper.wraps(device))
    refusal = device.kind.refuses(device.config, wrapped=bool(wrappers))
    if refusal is not None:
        raise unsupported(claim, found, refusal.field, refusal.value, refusal.advice)
    return replace(device, wrappers=wrappers)


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
