"""Which device nodes give a container its MIG device: those of its two instances, found by what they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dra_driver.cdi.spec import DeviceNode
from dra_driver.errors import HardwareError
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.kinds.mig.device import MigDevice
from kubelet_plugin.kinds.mig.place import MigPlace, from_arguments
from kubelet_plugin.kinds.mig.runners import COMPUTE_INSTANCE_ID, GPU_INSTANCE_ID, instance_there
from kubelet_plugin.kinds.mig.steps import COMPUTE_INSTANCE


class CapabilityReader(Protocol):
    """The nodes of a GPU instance and of a compute instance in it, as the driver's /proc says it; one that says nothing
    raises ``HardwareError``, retryable (``dra_driver.cdi.mig_capabilities``)."""

    def __call__(self, gpu_minor: int, gpu_instance_id: int, compute_instance_id: int, /) -> Sequence[DeviceNode]: ...


def capability_nodes(
    device: MigDevice, done: Sequence[StepRecord], hardware: MigHardware, read: CapabilityReader
) -> Sequence[DeviceNode]:
    """Raises ``HardwareError``. ``done``: the claim's steps so far, whose results say which instances were made."""
    return read(device.gpu.minor, *_ids(device.at, done, hardware))


def _ids(place: MigPlace, done: Sequence[StepRecord], hardware: MigHardware) -> tuple[int, int]:
    """Of GPU instance and compute instance: as made by the steps ``done``, or else as the hardware has them."""
    for record in done:
        if record.kind == COMPUTE_INSTANCE and from_arguments(record.arguments) == place:
            return int(record.result[GPU_INSTANCE_ID]), int(record.result[COMPUTE_INSTANCE_ID])
    found = instance_there(hardware, place)
    compute = next(filter(place.is_compute, found.compute_instances), None) if found else None
    if found is None or compute is None:
        raise HardwareError(
            f"MIG device {place} has gone from the hardware",
            hint="somebody destroyed it; make it again, or delete the pod so that its claim is allocated anew",
        )
    return found.id, compute.id
