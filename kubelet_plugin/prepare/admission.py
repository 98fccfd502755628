"""May this claim have its devices, here and now? Everything that is checked before anything is changed. Pure.

Devices have to exist, configurations to fit, and a device that another claim holds is refused, whatever the scheduler
says: claims are force-deleted, and two schedulers may run (kubernetes/kubernetes#141471). Admin access is exempt, and
never keeps others out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dra_driver.devices.model import DeviceKind
from dra_driver.devices.naming import GpuName, parse_name
from dra_driver.errors import DeviceInUse, DeviceNotFound
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims import AllocatedClaim, AllocatedDevice
from kubelet_plugin.prepare.configs import DeviceConfig, resolve_configs
from kubelet_plugin.prepare.entry import ClaimEntry, ClaimState, HeldDevice


@dataclass(frozen=True, slots=True)
class AdmittedDevice:
    allocated: AllocatedDevice
    gpu: Gpu
    config: DeviceConfig


@dataclass(frozen=True, slots=True)
class AdmittedClaim:
    """A claim that may be prepared. ``before`` is what the checkpoint has of it."""

    claim: AllocatedClaim
    devices: tuple[AdmittedDevice, ...]
    before: ClaimEntry | None


def admit(claim: AllocatedClaim, machine: Machine, entries: Mapping[str, ClaimEntry], boot_id: str) -> AdmittedClaim:
    """Raises the ``DriverError`` that says why not. ``entries`` is the checkpoint, by claim UID."""
    gpus = tuple(find_gpu(machine, device.device) for device in claim.devices)
    configs = resolve_configs(claim, (DeviceKind.GPU,) * len(gpus))
    for device in claim.devices:
        _refuse_held(claim, device, entries, boot_id)
    devices = map(AdmittedDevice, claim.devices, gpus, configs)
    return AdmittedClaim(claim, tuple(devices), entries.get(claim.ref.uid))


def find_gpu(machine: Machine, device_name: str) -> Gpu:
    """The GPU that is device ``device_name`` as a whole. Raises :class:`DeviceNotFound`."""
    minor = _minor(device_name)
    gpu = next((gpu for gpu in machine.gpus if gpu.minor == minor), None)
    if gpu is None or not _is_whole_gpu(device_name):
        present = ", ".join(f"gpu-{gpu.minor}" for gpu in machine.gpus) or "no GPU at all"
        raise DeviceNotFound(
            f"device {device_name} does not exist on this node, which has {present}",
            hint="the GPU was removed or failed after the claim was allocated; "
            "delete the claim (or its pod) so that it is allocated anew",
        )
    if gpu.mig is not None and gpu.mig.enabled:
        raise DeviceNotFound(
            f"device {device_name} (GPU {gpu.uuid}) is in MIG mode and cannot be used as a whole",
            hint="switch MIG mode off on that GPU, or ask for a MIG device",
        )
    return gpu


def _refuse_held(
    claim: AllocatedClaim, device: AllocatedDevice, entries: Mapping[str, ClaimEntry], boot_id: str
) -> None:
    if device.admin_access:
        return
    for entry in entries.values():
        if entry.ref.uid == claim.ref.uid or entry.boot_id != boot_id:
            continue  # what an earlier boot prepared, no process uses any more
        held = next((held for held in entry.devices if _collide(device, held)), None)
        if held is None:
            continue
        lost = entry.state is ClaimState.RECORD_LOST
        raise DeviceInUse(
            f"device {device.device} is held by claim {_holder(entry)} on this node"
            + (", whose record was damaged and is known only from its CDI file" if lost else ""),
            hint="it becomes free when the last pod with that claim has ended on this node; "
            "if that pod was force-deleted, wait for the kubelet to clean up",
        )


def _collide(device: AllocatedDevice, held: HeldDevice) -> bool:
    if held.admin_access or _minor(device.device) != _minor(held.answer.device_name):
        return False
    return device.share_id is None or held.is_exclusive


def _holder(entry: ClaimEntry) -> str:
    return str(entry.ref) if entry.ref.name else f"with UID {entry.ref.uid}"


def _minor(device_name: str) -> int | None:
    try:
        return parse_name(device_name).minor
    except ValueError:
        return None


def _is_whole_gpu(device_name: str) -> bool:
    return isinstance(parse_name(device_name), GpuName)
