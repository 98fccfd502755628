"""Our records in NVIDIA's form, for its driver to go on with. Pure.

Its plugin looks at nothing but its checkpoint: a claim that is not in there has no devices for it, and with dynamic MIG
it destroys every instance of no finished claim when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dra_driver.devices.naming import GpuName, MigName, read_name
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, Machine
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice
from kubelet_plugin.takeover.nvidia_checkpoint import (
    DeviceType,
    LiveMig,
    NvidiaClaim,
    NvidiaDevice,
    NvidiaResult,
    NvidiaState,
)

_FINISHED = frozenset((ClaimState.COMPLETED, ClaimState.RECORD_LOST))


def to_nvidia(
    entries: Iterable[ClaimEntry], machine: Machine, boot_id: str, is_time_sliced: Callable[[ClaimEntry], bool]
) -> tuple[NvidiaClaim, ...]:
    """The claims of this boot. One that is between two states, or whose device has gone, becomes a begun one.

    A begun claim holds nothing there: its next prepare or unprepare clears up what it may have left. Of a claim that
    has set time slices it is said, and NVIDIA's driver sets them back when it ends.
    """
    return tuple(_claim(entry, machine, is_time_sliced) for entry in entries if entry.boot_id == boot_id)


def _claim(entry: ClaimEntry, machine: Machine, is_time_sliced: Callable[[ClaimEntry], bool]) -> NvidiaClaim:
    results = tuple(_result(held) for held in entry.devices)
    found = [_device(held, machine) for held in entry.devices]
    devices = tuple(device for device in found if device is not None)
    finished = entry.state in _FINISHED and bool(devices) and len(devices) == len(found)
    return NvidiaClaim(
        uid=entry.ref.uid,
        state=NvidiaState.COMPLETED if finished else NvidiaState.STARTED,
        results=results,
        devices=devices if finished else (),
        namespace=entry.ref.namespace,
        name=entry.ref.name,
        time_sliced=finished and is_time_sliced(entry),
    )


def _result(held: HeldDevice) -> NvidiaResult:
    answer = held.prepared
    request = answer.request_names[0] if answer.request_names else ""
    return NvidiaResult(request, answer.pool_name, answer.device_name, answer.share_id, held.admin_access)


def _device(held: HeldDevice, machine: Machine) -> NvidiaDevice | None:
    """None when it is not on the machine."""
    answer = held.prepared
    name = read_name(answer.device_name)
    gpu = None if name is None else machine.with_minor(name.minor)
    if name is None or gpu is None:
        return None
    live = None if isinstance(name, GpuName) else _live(name, gpu)
    if isinstance(name, MigName) and live is None:
        return None
    return NvidiaDevice(
        type=DeviceType.MIG if live else DeviceType.GPU,
        requests=answer.request_names,
        pool=answer.pool_name,
        name=answer.device_name,
        cdi_ids=answer.cdi_device_ids,
        share_id=answer.share_id,
        gpu_uuid=gpu.uuid,
        mig=live,
    )


def _live(name: MigName, gpu: Gpu) -> LiveMig | None:
    for instance in gpu.mig.instances if gpu.mig else ():
        compute = _compute(name, instance)
        if compute is not None:
            return LiveMig(compute.uuid, gpu.uuid, gpu.minor, instance.id, compute.id)
    return None


def _compute(name: MigName, instance: GpuInstance) -> ComputeInstance | None:
    if (instance.profile_id, instance.placement.start) != (name.profile_id, name.start):
        return None
    wanted = name.compute_slices()
    return next(
        (each for each in instance.compute_instances if wanted is None or each.start == wanted.start),
        None,
    )
