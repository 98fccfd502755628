"""Which instances nobody's claim made, and what of it the controller is told. Pure.

A reading may be older than an unprepare that ended while it was made, so only what two readings in a row say counts:
the second began after the first was judged. What that judgement found without an owner, though it was a claim's, was
destroyed before its claim was forgotten; the second reading shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from api.mig_policy import MigMode
from dra_driver.devices.policy import toggles_without_reset
from dra_driver.hardware.model import Gpu, GpuInstance, Machine, MigState, RefusedPlacement
from kubelet_plugin.kinds.mig.owners import Owners

ModeOf = Callable[[Gpu], MigMode]


@dataclass(frozen=True, slots=True)
class Sighting:
    """An instance as one reading shows it; another one in its place is another sighting, by its UUIDs."""

    gpu_uuid: str
    instance: GpuInstance


def unowned(machine: Machine, owners: Owners, mode_of: ModeOf) -> frozenset[Sighting]:
    """Instances without an owner on the GPUs whose instances claims make."""
    return frozenset(
        Sighting(gpu.uuid, instance)
        for gpu, mig in _dynamic(machine, mode_of)
        for instance in mig.instances
        if owners.of(gpu.uuid, instance) is None
    )


def told(
    machine: Machine,
    foreign: frozenset[Sighting],
    refused: Mapping[str, tuple[RefusedPlacement, ...]],
    mode_of: ModeOf,
) -> Machine:
    """``machine`` without what prepares of claims change, so that no prepare writes to the API.

    Of a GPU whose instances claims make only the foreign ones are told, and its MIG mode only where a reset is needed
    to change it: otherwise it is on as long as something foreign needs it. Static GPUs are told as they are.
    """
    dynamic = {gpu.uuid for gpu, _mig in _dynamic(machine, mode_of)}
    return replace(
        machine,
        gpus=tuple(
            _told(gpu, foreign, refused.get(gpu.uuid, ())) if gpu.uuid in dynamic else gpu for gpu in machine.gpus
        ),
    )


def _told(gpu: Gpu, foreign: frozenset[Sighting], refused: tuple[RefusedPlacement, ...]) -> Gpu:
    mig = gpu.mig
    if mig is None:
        return gpu
    instances = tuple(
        replace(instance, foreign=True) for instance in mig.instances if Sighting(gpu.uuid, instance) in foreign
    )
    if toggles_without_reset(gpu):
        on = bool(instances)
        return replace(gpu, mig=replace(mig, enabled=on, pending=on, instances=instances, refused=refused))
    return replace(gpu, mig=replace(mig, instances=instances, refused=refused))


def _dynamic(machine: Machine, mode_of: ModeOf) -> Iterator[tuple[Gpu, MigState]]:
    for gpu in machine.gpus:
        if gpu.mig is not None and mode_of(gpu) is MigMode.DYNAMIC:
            yield gpu, gpu.mig
