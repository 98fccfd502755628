"""What about the MIG of a node an administrator should know: each becomes an Event, once. Pure.

The same facts taint devices (``dra_driver.devices.mig_taints``), but a taint has no room for what to do about them.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.mig_policy import MigMode
from controller.problem import Problem, some_of
from dra_driver.devices.naming import gpu_name, mig_name
from dra_driver.devices.offered import OfferedAs, offered_as
from dra_driver.devices.policy import DevicePolicy, GpuMigPolicy
from dra_driver.hardware.model import Gpu, Machine, MigState, RefusedPlacement


def mig_problems(machine: Machine, policy: DevicePolicy, node: str) -> Iterator[Problem]:
    """The problems of node ``node``, GPU by GPU."""
    for gpu in machine.gpus:
        if gpu.mig is not None:
            yield from _of_gpu(gpu, gpu.mig, policy.mig.for_gpu(node, gpu))


def _of_gpu(gpu: Gpu, state: MigState, mig: GpuMigPolicy) -> Iterator[Problem]:
    if mig.mode is MigMode.DYNAMIC:
        yield from _of_dynamic(gpu, state, mig)
    match offered_as(gpu, mig.mode):
        case OfferedAs.NOTHING if mig.mode is MigMode.OFF:
            yield _not_offered(gpu, "a rule in spec.mig says off. Switch its MIG mode off, or choose static or dynamic")
        case OfferedAs.NOTHING:
            yield _not_offered(gpu, "NVML lists no MIG profile of it. Switch its MIG mode off, or choose static")
        case OfferedAs.EXISTING if not any(each.compute_instances for each in state.instances):
            yield _not_offered(
                gpu, "it has no MIG devices. Create them, switch its MIG mode off, or choose dynamic in spec.mig"
            )


def _of_dynamic(gpu: Gpu, state: MigState, mig: GpuMigPolicy) -> Iterator[Problem]:
    foreign = [
        f"{each.profile_name} at memory slice {each.placement.start} (GPU instance {each.id})"
        for each in state.instances
        if each.foreign
    ]
    if foreign and not mig.adopt_foreign:
        yield Problem(
            "ForeignMigInstance",
            f"{_called(gpu)} has MIG instances that no claim made: {some_of(foreign)}. Devices that they are in "
            "the way of are tainted; remove them (nvidia-smi mig -dci, then -dgi), or let claims do it by a rule "
            "with adoptForeign: true in spec.mig",
        )
    for refused in state.refused:
        yield Problem("MigPlacementRefused", f"{_device(gpu, state, refused)} is tainted: {refused.message}")


def _not_offered(gpu: Gpu, because: str) -> Problem:
    return Problem("MigWithoutDevices", f"{_called(gpu)} is not offered: its MIG mode is on and {because}")


def _called(gpu: Gpu) -> str:
    return f"{gpu_name(gpu.minor)} ({gpu.uuid})"


def _device(gpu: Gpu, state: MigState, refused: RefusedPlacement) -> str:
    profile = state.profile(refused.profile_id)
    if profile is None:
        return f"profile {refused.profile_id} at memory slice {refused.placement.start} of {_called(gpu)}"
    return mig_name(gpu.minor, profile.name, profile.id, refused.placement.start)
