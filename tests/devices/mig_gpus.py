"""GPUs with MIG, by the profiles of the recorded machines, and instances on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dra_driver.hardware.model import (
    ComputeInstance,
    Gpu,
    GpuInstance,
    MigPlacement,
    MigProfile,
    MigState,
    RefusedPlacement,
)
from tests.devices.builders import gpu
from tests.devices.recorded import recorded_profiles

H100 = "h100-sxm5-80gb"
A100 = "a100-sxm4-40gb"
# What else a GPU must be so that its MIG mode changes by a reset only.
AMPERE: dict[str, Any] = {"architecture": "Ampere", "cuda_compute_capability": "8.0"}


def mig_gpu(
    number: int = 0,
    profiles: str = H100,
    *,
    enabled: bool = False,
    instances: Sequence[GpuInstance] = (),
    refused: Sequence[RefusedPlacement] = (),
    **changes: Any,
) -> Gpu:
    """GPU ``number`` with the profiles of a recorded machine; a Hopper unless ``changes`` say otherwise."""
    state = MigState(enabled, enabled, recorded_profiles(profiles), tuple(instances), tuple(refused))
    return gpu(number, mig=state, **changes)


def profile(name: str, of: str = H100) -> MigProfile:
    return next(each for each in recorded_profiles(of) if each.name == name)


def instance(name: str, start: int, *parts: tuple[int, int], foreign: bool = False, of: str = H100) -> GpuInstance:
    """A GPU instance; ``parts`` are sizes and starts of its compute instances, by default one that is all of it."""
    found = profile(name, of)
    compute = tuple(
        ComputeInstance(number, f"MIG-{name}-{start}-{number}", slices, compute_start)
        for number, (slices, compute_start) in enumerate(parts or ((found.slice_count, 0),))
    )
    place = MigPlacement(start, found.placements[0].size)
    return GpuInstance(start + 1, found.id, found.name, place, compute, foreign)
