"""The recorded machines as frozen values of the hardware model, read from their files without NVML in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.hardware.model import Gpu, GpuInstance, Machine, MigProfile
from dra_driver.simulation.hardware.description import (
    HardwareDescription,
    ProductDescription,
    load_machine,
    recorded_machines,
)
from tests.cdi.driver_root import VERSION

_MIG_MACHINES = tuple(name for name in recorded_machines() if load_machine(name).hardware.products[0].mig_profiles)

_ENGINES = ("copyEngines", "decoders", "encoders", "jpegEngines", "ofaEngines")


def mig_machines() -> tuple[str, ...]:
    """Names of the recorded machines whose GPUs have MIG."""
    return _MIG_MACHINES


def recorded_profiles(machine: str) -> tuple[MigProfile, ...]:
    """The profiles of the first GPU of a recorded machine that has MIG, in the file's order."""
    mig = recorded_gpu(machine).mig
    if mig is None:
        raise ValueError(f"{machine} has no MIG")
    return mig.profiles


def recorded_gpu(machine: str, *instances: GpuInstance, enabled: bool = True) -> Gpu:
    """The first GPU of a recorded machine, with these instances; its UUID is ``GPU-<machine>``."""
    gpu = _machine(load_machine(machine).hardware, mig_on=enabled).gpus[0]
    return with_instances(replace(gpu, uuid=f"GPU-{machine}"), *instances)


def recorded(machine: str, gpus: int | None = None, *, mig_on: bool = False) -> Machine:
    """The first ``gpus`` GPUs of a recorded machine, with minors from 0, UUIDs ``GPU-<minor>`` and no instances.

    Its driver is the one whose files :func:`tests.cdi.driver_root.small_root` makes.
    """
    found = _machine(load_machine(machine).hardware, mig_on=mig_on)
    return replace(found, gpus=tuple(replace(gpu, minor=index) for index, gpu in enumerate(found.gpus[:gpus])))


def with_instances(gpu: Gpu, *instances: GpuInstance) -> Gpu:
    return gpu if gpu.mig is None else replace(gpu, mig=replace(gpu.mig, instances=instances))


def _machine(hardware: HardwareDescription, *, mig_on: bool) -> Machine:
    """By way of a NodeInventory's status, whose words are nearly those of a machine file: so one place makes a Machine."""
    mode = "Enabled" if mig_on else "Disabled"
    status = {
        "driverVersion": VERSION,
        "cudaDriverVersion": hardware.cuda_driver_version,
        "products": [_product(each) for each in hardware.products],
        "gpus": [
            {
                "index": index,
                "minor": gpu.minor,
                "uuid": f"GPU-{index}",
                "product": gpu.product,
                "pciBusID": gpu.pci_bus_id,
                "mig": None if hardware.product_of(index).mig_profiles is None else mode,
            }
            for index, gpu in enumerate(hardware.gpus)
        ],
    }
    return machine_from_status(MachineStatus.model_validate(status))


def _product(product: ProductDescription) -> dict[str, Any]:
    wire: dict[str, Any] = product.model_dump(mode="json", by_alias=True, exclude={"addressing_mode"})
    for profile in wire["migProfiles"] or ():
        profile["engines"] = [profile[name] for name in _ENGINES]
    return wire
