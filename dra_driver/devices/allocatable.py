"""Machine and policy in, allocatable devices out: what a node offers to the scheduler. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from dra_driver.devices.attributes import gpu_attributes, gpu_capacity
from dra_driver.devices.fence_taints import with_fence_taints
from dra_driver.devices.fences import fencing_of
from dra_driver.devices.mig_devices import existing_devices, placement_devices
from dra_driver.devices.mig_gpu import MigGpu
from dra_driver.devices.mig_resources import capacities, counter_set, most_of_each
from dra_driver.devices.mig_taints import whole_gpu_taints
from dra_driver.devices.model import AllocatableDevice, CounterConsumption, CounterSet, DeviceKind, DeviceSet
from dra_driver.devices.naming import gpu_name
from dra_driver.devices.offered import OfferedAs, offered_as
from dra_driver.devices.ordering import order_gpus
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.shares import shared, sharing_of
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine


def allocatable_devices(machine: Machine, policy: DevicePolicy, node: str = "") -> DeviceSet:
    """The devices of node ``node`` in published order: GPU by GPU, each as a whole first, then its MIG devices.

    Raises HardwareError when two GPUs claim one minor number, since they would share a name.
    """
    _refuse_shared_minors(machine)
    per_gpu = [with_fence_taints(_of_gpu(gpu, machine, policy, node), gpu, policy) for gpu in order_gpus(machine.gpus)]
    return DeviceSet(
        tuple(device for devices in per_gpu for device in devices.devices),
        tuple(counters for devices in per_gpu for counters in devices.counter_sets),
    )


def _of_gpu(gpu: Gpu, machine: Machine, policy: DevicePolicy, node: str) -> DeviceSet:
    mig = policy.mig.for_gpu(node, gpu)
    offered = offered_as(gpu, mig.mode)
    if gpu.mig is None or offered is OfferedAs.WHOLE:
        return DeviceSet((_shared(_whole_gpu(gpu, machine, policy), gpu, machine, policy, node),))
    divisible = MigGpu(gpu, gpu.mig, mig, policy, machine, node)
    match offered:
        case OfferedAs.NOTHING:
            return DeviceSet()
        case OfferedAs.EXISTING:
            return DeviceSet(tuple(existing_devices(divisible)))
        case OfferedAs.PLACEMENTS | OfferedAs.WHOLE_AND_PLACEMENTS:
            return _dynamic(divisible, offered)


def _whole_gpu(gpu: Gpu, machine: Machine, policy: DevicePolicy) -> AllocatableDevice:
    return AllocatableDevice(
        name=gpu_name(gpu.minor),
        kind=DeviceKind.GPU,
        gpu_uuid=gpu.uuid,
        attributes=gpu_attributes(gpu, machine, policy),
        capacity=gpu_capacity(gpu),
    )


def _dynamic(divisible: MigGpu, offered: OfferedAs) -> DeviceSet:
    """Everything that the GPU could be cut into, and the whole where it is offered, all drawing from one counter set.

    None of it depends on the instances of claims.
    """
    counters = counter_set(divisible.gpu, divisible.state)
    whole = (_whole_and_divisible(divisible, counters),) if offered.includes_whole else ()
    return DeviceSet((*whole, *placement_devices(divisible)), (counters,))


def _whole_and_divisible(divisible: MigGpu, counters: CounterSet) -> AllocatableDevice:
    """The GPU as one device that uses up the counter set.

    Beside ``memory`` it has the capacities of MIG devices, so that one request can be satisfied by either. ``memory``
    is that of the whole GPU, and not, as NVIDIA's driver has it, of the largest profile: a manifest that asks for all
    of an 80Gi GPU would wait forever otherwise. What it takes from the counters is still all that there is of each,
    and where it is shared, once for all of its shares.
    """
    whole = _whole_gpu(divisible.gpu, divisible.machine, divisible.policy)
    of_mig = {name: held for name, held in capacities(most_of_each(divisible.state)).items() if name != "memory"}
    device = replace(
        whole,
        capacity={**of_mig, **whole.capacity},
        consumes=(CounterConsumption(counters.name, counters.counters),),
        taints=whole_gpu_taints(divisible),
    )
    return _shared(device, divisible.gpu, divisible.machine, divisible.policy, divisible.node)


def _shared(
    device: AllocatableDevice, gpu: Gpu, machine: Machine, policy: DevicePolicy, node: str
) -> AllocatableDevice:
    return shared(device, sharing_of(policy, node, gpu), fencing_of(device.name, gpu, machine, policy))


def _refuse_shared_minors(machine: Machine) -> None:
    counts = Counter(gpu.minor for gpu in machine.gpus)
    for minor, count in counts.items():
        if count > 1:
            uuids = ", ".join(gpu.uuid for gpu in machine.gpus if gpu.minor == minor)
            raise HardwareError(
                f"{count} GPUs report minor number {minor}: {uuids}",
                hint="the inventory is inconsistent; restart the kubelet plugin so that it is read again",
            )
