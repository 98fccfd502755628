"""What MIG devices are made of: capacities as people see them, counters as the scheduler subtracts them.

Names and arithmetic are those of NVIDIA's driver with DynamicMIG (dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin,
partitions): a counter has the capacity's name in kebab case, and each memory slice is a counter of its own, because
which slices are taken decides what fits, not how many. The set holds the most that any profile has, so the largest
profile, and the whole GPU, use up all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dra_driver.devices.model import Capacity, CounterConsumption, CounterSet
from dra_driver.devices.naming import gpu_name
from dra_driver.hardware.model import Gpu, MigPlacement, MigProfile, MigState
from dra_driver.quantity import Quantity

_MIB = 2**20
_SLICE_COUNTER = "memory-slice-"
_SLICE_CAPACITY = "memorySlice"

# Capacity name to counter name.
COUNTERS: Final[Mapping[str, str]] = {
    "multiprocessors": "multiprocessors",
    "copyEngines": "copy-engines",
    "decoders": "decoders",
    "encoders": "encoders",
    "jpegEngines": "jpeg-engines",
    "ofaEngines": "ofa-engines",
    "memory": "memory",
}

Resources = Mapping[str, Quantity]


def profile_resources(profile: MigProfile) -> Resources:
    """What a GPU instance of this profile has, by capacity name; memory in bytes."""
    return {
        "multiprocessors": Quantity.of(profile.multiprocessors),
        "copyEngines": Quantity.of(profile.copy_engines),
        "decoders": Quantity.of(profile.decoders),
        "encoders": Quantity.of(profile.encoders),
        "jpegEngines": Quantity.of(profile.jpeg_engines),
        "ofaEngines": Quantity.of(profile.ofa_engines),
        "memory": Quantity.binary(profile.memory_mib * _MIB),
    }


def partial_resources(state: MigState, profile: MigProfile, slices: int) -> Resources:
    """What a compute instance of ``slices`` compute slices, a part of a GPU instance of this profile, has.

    Memory and engines belong to the GPU instance, and every compute instance in it uses all of them. Multiprocessors
    are dealt out by compute slices, each with as many as the smallest GPU instance has: those that a larger one has
    beyond that (60 in a 3g of an H100, whose slices have 16) only a compute instance of all its slices gets.
    """
    smallest = min(state.profiles, key=lambda each: (each.slice_count, each.multiprocessors))
    multiprocessors = smallest.multiprocessors * slices // smallest.slice_count
    return {**profile_resources(profile), "multiprocessors": Quantity.of(multiprocessors)}


def most_of_each(state: MigState) -> Resources:
    """The most that any profile of the GPU has, by capacity name; empty without profiles."""
    per_profile = [profile_resources(profile) for profile in state.profiles]
    return {name: max(resources[name] for resources in per_profile) for name in COUNTERS} if per_profile else {}


def memory_slice_count(state: MigState) -> int:
    """Memory slices of the GPU: where the placement that reaches farthest ends."""
    return max((placement.end for profile in state.profiles for placement in profile.placements), default=0)


def counter_set_name(gpu: Gpu) -> str:
    return f"{gpu_name(gpu.minor)}-counter-set"


def counter_set(gpu: Gpu, state: MigState) -> CounterSet:
    """All that the GPU's devices draw from."""
    return CounterSet(counter_set_name(gpu), _counters(most_of_each(state), MigPlacement(0, memory_slice_count(state))))


def consumption(gpu: Gpu, profile: MigProfile, placement: MigPlacement) -> CounterConsumption:
    """What a GPU instance of ``profile`` at ``placement`` takes from the GPU's counter set."""
    return CounterConsumption(counter_set_name(gpu), _counters(profile_resources(profile), placement))


def capacities(resources: Resources) -> Mapping[str, Capacity]:
    return {name: Capacity(quantity) for name, quantity in resources.items()}


def memory_slice_capacities(placement: MigPlacement) -> Mapping[str, Capacity]:
    """``memorySlice<i>`` = 1 for each slice covered: what NVIDIA's driver says of MIG devices that exist."""
    return {f"{_SLICE_CAPACITY}{index}": Capacity(Quantity.of(1)) for index in range(placement.start, placement.end)}


def counters_of_capacities(capacity: Mapping[str, Capacity]) -> Mapping[str, Quantity]:
    """What a MIG device that draws from no counters would draw, by counter name, as far as its capacities tell."""
    counters = {COUNTERS[name]: held.value for name, held in capacity.items() if name in COUNTERS}
    slices = (name.removeprefix(_SLICE_CAPACITY) for name in capacity if is_memory_slice_capacity(name))
    return counters | {_slice_counter(index): Quantity.of(1) for index in slices}


def is_memory_slice_capacity(name: str) -> bool:
    return name.startswith(_SLICE_CAPACITY)


def is_memory_slice(counter: str) -> bool:
    return counter.startswith(_SLICE_COUNTER)


def memory_slice(counter: str) -> int | None:
    """The index of the memory slice that a counter stands for; None for a counter of something else."""
    return int(counter.removeprefix(_SLICE_COUNTER)) if is_memory_slice(counter) else None


def _slice_counter(index: int | str) -> str:
    return f"{_SLICE_COUNTER}{index}"


def _counters(resources: Resources, placement: MigPlacement) -> Mapping[str, Quantity]:
    slices = {_slice_counter(index): Quantity.of(1) for index in range(placement.start, placement.end)}
    return {COUNTERS[name]: quantity for name, quantity in resources.items()} | slices
