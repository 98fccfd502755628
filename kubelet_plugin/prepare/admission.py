"""May this claim have its devices, here and now? Everything that is checked before anything is changed. Pure.

Devices have to exist, configurations to fit, and a device that another claim holds is refused, whatever the scheduler
says: claims are force-deleted, and two schedulers may run (kubernetes/kubernetes#141471). A whole GPU and its MIG
devices keep each other out, and so do MIG devices that overlap. Admin access is exempt, and never keeps others out.

Whether the hardware is ready for it is ``mig.planning``'s question: that changes nothing about whose a device is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dra_driver.devices.model import DeviceKind
from dra_driver.devices.naming import GpuName, MigName, gpu_name, parse_name
from dra_driver.devices.policy import GpuMigPolicy, MigPolicy
from dra_driver.errors import ClaimError, DeviceInUse, DeviceNotFound
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.allocated import AllocatedClaim, AllocatedDevice
from kubelet_plugin.claims.configs import DeviceConfig, resolve_configs
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice
from kubelet_plugin.kinds.mig.place import MigPlace, place_of

_PROFILES_NAMED = 24
_DELETE_CLAIM = "delete the claim (or its pod) so that it is allocated anew"


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """What a device name stands for: a whole GPU, or one place of it."""

    gpu: Gpu
    place: MigPlace | None = None

    @property
    def kind(self) -> DeviceKind:
        return DeviceKind.GPU if self.place is None else DeviceKind.MIG

    def excludes(self, other: FoundDevice) -> bool:
        """Whether the two cannot be in use at once, by different claims or by one."""
        if self.gpu.minor != other.gpu.minor:
            return False
        if self.place is None or other.place is None:
            return True
        return self.place.excludes(other.place)


@dataclass(frozen=True, slots=True)
class AdmittedDevice:
    allocated: AllocatedDevice
    found: FoundDevice
    config: DeviceConfig
    policy: GpuMigPolicy

    @property
    def gpu(self) -> Gpu:
        return self.found.gpu

    @property
    def place(self) -> MigPlace | None:
        return self.found.place


@dataclass(frozen=True, slots=True)
class AdmittedClaim:
    """A claim that may be prepared. ``before`` is what the checkpoint has of it."""

    claim: AllocatedClaim
    devices: tuple[AdmittedDevice, ...]
    before: ClaimEntry | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds on this node: its name and boot, and what the administrator decided about MIG."""

    node: str
    boot_id: str
    mig: MigPolicy


def admit(claim: AllocatedClaim, machine: Machine, entries: Mapping[str, ClaimEntry], rules: Rules) -> AdmittedClaim:
    """Raises the ``DriverError`` that says why not. ``entries`` is the checkpoint, by claim UID."""
    found = tuple(find_device(machine, device.device) for device in claim.devices)
    configs = resolve_configs(claim, [each.kind for each in found])
    for position, (device, what) in enumerate(zip(claim.devices, found, strict=True)):
        _refuse_held(claim, device, what, machine, entries, rules.boot_id)
        for other, beside in zip(claim.devices[:position], found, strict=False):
            _refuse_beside(claim, device, what, other, beside)
    policies = (rules.mig.for_gpu(rules.node, each.gpu) for each in found)
    devices = map(AdmittedDevice, claim.devices, found, configs, policies)
    return AdmittedClaim(claim, tuple(devices), entries.get(claim.ref.uid))


def find_device(machine: Machine, device_name: str) -> FoundDevice:
    """What ``device_name`` stands for on this node. Raises :class:`DeviceNotFound`."""
    name = _parse(device_name)
    gpu = None if name is None else next((gpu for gpu in machine.gpus if gpu.minor == name.minor), None)
    if name is None or gpu is None:
        present = ", ".join(gpu_name(gpu.minor) for gpu in machine.gpus) or "no GPU at all"
        raise DeviceNotFound(
            f"device {device_name} does not exist on this node, which has {present}",
            hint=f"the GPU was removed or failed after the claim was allocated; {_DELETE_CLAIM}",
        )
    if isinstance(name, GpuName):
        return FoundDevice(gpu)
    place = place_of(name, gpu)
    if place is None:
        raise DeviceNotFound(
            f"device {device_name} does not exist: {gpu.product_name} {gpu.uuid} {_has_profiles(gpu)}",
            hint=f"the claim was allocated for another GPU or driver version; {_DELETE_CLAIM}",
        )
    return FoundDevice(gpu, place)


def _has_profiles(gpu: Gpu) -> str:
    profiles = gpu.mig.profiles if gpu.mig else ()
    if not profiles:
        return "has no MIG profiles"
    listed = [
        f"{profile.name} (id {profile.id}) at {', '.join(str(place.start) for place in profile.placements)}"
        for profile in profiles[:_PROFILES_NAMED]
    ]
    return f"has these MIG profiles and placements: {'; '.join(listed)}"


def _refuse_held(
    claim: AllocatedClaim,
    device: AllocatedDevice,
    found: FoundDevice,
    machine: Machine,
    entries: Mapping[str, ClaimEntry],
    boot_id: str,
) -> None:
    if device.admin_access:
        return
    for entry in entries.values():
        if entry.ref.uid == claim.ref.uid or entry.boot_id != boot_id:
            continue  # what an earlier boot prepared, no process uses any more
        held = next((held for held in entry.devices if _collide(device, found, held, machine)), None)
        if held is None:
            continue
        theirs = held.answer.device_name
        which = f"device {device.device}"
        if theirs != device.device:
            which += f" cannot be used beside {theirs}, which"
        lost = entry.state is ClaimState.RECORD_LOST
        raise DeviceInUse(
            f"{which} is held by claim {_holder(entry)} on this node"
            + (", a claim known only from its CDI file" if lost else ""),
            hint="it becomes free when the last pod with that claim has ended on this node; "
            "if that pod was force-deleted, wait for the kubelet to clean up"
            + ("; if there is no such pod, remove the CDI file and restart the plugin's pod" if lost else ""),
        )


def _collide(device: AllocatedDevice, found: FoundDevice, held: HeldDevice, machine: Machine) -> bool:
    if held.admin_access:
        return False
    name = _parse(held.answer.device_name)
    if name is None or name.minor != found.gpu.minor:
        return False
    if held.answer.device_name == device.device:
        return device.share_id is None or held.is_exclusive
    try:
        return found.excludes(find_device(machine, held.answer.device_name))
    except DeviceNotFound:
        return True  # the GPU no longer has the profile that was held: who knows what that covers


def _refuse_beside(
    claim: AllocatedClaim, device: AllocatedDevice, found: FoundDevice, other: AllocatedDevice, beside: FoundDevice
) -> None:
    if device.admin_access or other.admin_access or device.device == other.device or not found.excludes(beside):
        return
    raise OverlappingDevices(
        f"claim {claim.ref} was allocated {other.device} and {device.device}, which cannot exist at once",
        hint="a scheduler without partitionable devices (feature gate DRAPartitionableDevices) did that; "
        "delete the pod, and switch the gate on",
    )


class OverlappingDevices(ClaimError):
    """One claim was allocated devices that cover each other; trying again cannot help."""

    reason = "OverlappingDevices"
    retryable = False


def _holder(entry: ClaimEntry) -> str:
    return str(entry.ref) if entry.ref.name else f"with UID {entry.ref.uid}"


def _parse(device_name: str) -> GpuName | MigName | None:
    try:
        return parse_name(device_name)
    except ValueError:
        return None
