"""A map of one GPU's memory slices: who has which, what exists without an owner, what is free. Pure.

Two views meet here: what claims have been given (their allocations name devices, and a device's name says where it
lies), and what the plugin last saw on the hardware (NodeInventory). A claim's place is its own from its allocation on,
whether the GPU instance exists already or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dra_driver.allocator.model import ClaimKey
from dra_driver.devices.mig_resources import memory_slice_count
from dra_driver.devices.naming import GpuName, MigName, gpu_name, partial_profile
from dra_driver.hardware.model import Gpu, GpuInstance, MigPlacement

WHOLE_GPU = "gpu"  # in the place of a profile


class BlockState(StrEnum):
    CLAIM = "claim"  # given to claims
    FOREIGN = "foreign"  # on the hardware, and no claim made it
    IDLE = "idle"  # on the hardware, and a claim may have it
    FREE = "free"
    PLANNED = "planned"  # would be given


@dataclass(frozen=True, slots=True)
class Holder:
    """A claim and the pods that may use it. ``profile`` is that of its device: 1c.3g.40gb in a shared 3g.40gb."""

    claim: ClaimKey
    pods: tuple[str, ...]
    device: str
    profile: str


@dataclass(frozen=True, slots=True)
class Block:
    """Memory slices ``placement`` in one state. ``profile`` of the GPU instance; empty when free."""

    placement: MigPlacement
    state: BlockState
    profile: str = ""
    holders: tuple[Holder, ...] = ()
    device: str = ""  # planned: which one
    instance: int | None = None  # id of the GPU instance, where it exists


@dataclass(frozen=True, slots=True)
class GpuMap:
    """``blocks`` cover the memory slices from 0 on, in order; a GPU without MIG counts as one slice."""

    node: str
    gpu: Gpu
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return gpu_name(self.gpu.minor)

    @property
    def slices(self) -> int:
        return sum(block.placement.size for block in self.blocks)

    @property
    def free(self) -> int:
        """Memory slices that nothing and nobody has."""
        return sum(block.placement.size for block in self.blocks if block.state is BlockState.FREE)


@dataclass(frozen=True, slots=True)
class HeldDevice:
    """One device in a claim's allocation."""

    name: GpuName | MigName
    claim: ClaimKey
    pods: tuple[str, ...] = field(default=())


def map_gpu(
    node: str,
    gpu: Gpu,
    held: Sequence[HeldDevice],
    planned: Sequence[MigName] = (),
    notes: Iterable[str] = (),
) -> GpuMap:
    """The map of ``gpu``. ``held`` and ``planned`` may name devices of other GPUs of the node too."""
    claimed = list(_claimed(gpu, held))
    taken = [*claimed, *_planned(gpu, planned, {(block.placement, block.profile) for block in claimed})]
    found, hidden = _on_hardware(gpu, taken)
    blocks = sorted([*found, *taken], key=lambda block: (block.placement, block.profile))
    drawn, covered = _without_overlap(blocks)
    return GpuMap(node, gpu, tuple(_filled(drawn, _slices(gpu))), (*notes, *hidden, *covered))


def lies_at(gpu: Gpu, name: GpuName | MigName) -> tuple[MigPlacement, str] | None:
    """Where a device of ``gpu`` lies and the profile of its GPU instance; None when the GPU has no such profile."""
    if isinstance(name, GpuName):
        return MigPlacement(0, _slices(gpu)), WHOLE_GPU
    profile = gpu.mig.profile(name.profile_id) if gpu.mig else None
    if profile is None:
        return None
    return MigPlacement(name.start, profile.placements[0].size if profile.placements else 1), profile.name


def _slices(gpu: Gpu) -> int:
    return max(1, memory_slice_count(gpu.mig)) if gpu.mig else 1


def _claimed(gpu: Gpu, held: Sequence[HeldDevice]) -> Iterator[Block]:
    """A block for each GPU instance, with all claims in it."""
    places: dict[tuple[MigPlacement, str], list[Holder]] = {}
    for device in held:
        place = lies_at(gpu, device.name) if device.name.minor == gpu.minor else None
        if place is not None:
            profile = _device_profile(device.name, place[1])
            holder = Holder(device.claim, device.pods, str(device.name), profile)
            places.setdefault(place, []).append(holder)
    instances = {
        (instance.placement, instance.profile_name): instance.id for instance in (gpu.mig.instances if gpu.mig else ())
    }
    for (placement, profile), holders in places.items():
        yield Block(placement, BlockState.CLAIM, profile, tuple(holders), instance=instances.get((placement, profile)))


def _device_profile(name: GpuName | MigName, profile: str) -> str:
    parts = name.compute_slices() if isinstance(name, MigName) else None
    return profile if parts is None else partial_profile(profile, len(parts))


def _planned(gpu: Gpu, planned: Sequence[MigName], drawn: set[tuple[MigPlacement, str]]) -> Iterator[Block]:
    """One block for each GPU instance; a part of one that claims have is drawn as theirs."""
    for name in planned:
        place = lies_at(gpu, name) if name.minor == gpu.minor else None
        if place is not None and place not in drawn:
            drawn.add(place)
            yield Block(place[0], BlockState.PLANNED, place[1], device=str(name))


def _on_hardware(gpu: Gpu, taken: Sequence[Block]) -> tuple[list[Block], list[str]]:
    """Instances that are no claim's and lie under nothing that is drawn already; a sentence for each that does."""
    found: list[Block] = []
    hidden: list[str] = []
    same = {(block.placement, block.profile) for block in taken}
    for instance in gpu.mig.instances if gpu.mig else ():
        if (instance.placement, instance.profile_name) in same:
            continue
        if any(block.placement.overlaps(instance.placement) for block in taken):
            hidden.append(_hidden(instance))
            continue
        state = BlockState.FOREIGN if instance.foreign else BlockState.IDLE
        found.append(Block(instance.placement, state, instance.profile_name, instance=instance.id))
    return found, hidden


def _hidden(instance: GpuInstance) -> str:
    where = f"{instance.profile_name} at {instance.placement.start}"
    return f"GPU instance {instance.id} ({where}) lies in the way of what is drawn there"


def _without_overlap(blocks: Sequence[Block]) -> tuple[list[Block], list[str]]:
    """Each block that lies behind those before it. Claims never overlap, unless two schedulers gave them away."""
    drawn: list[Block] = []
    covered: list[str] = []
    for block in blocks:
        if drawn and drawn[-1].placement.end > block.placement.start:
            names = ", ".join(str(holder.claim) for holder in block.holders) or block.device
            covered.append(f"{names} ({block.profile} at {block.placement.start}) overlaps what is drawn there")
        else:
            drawn.append(block)
    return drawn, covered


def _filled(blocks: Iterable[Block], slices: int) -> Iterator[Block]:
    at = 0
    for block in blocks:
        yield from _free(at, block.placement.start)
        yield block
        at = block.placement.end
    yield from _free(at, slices)


def _free(start: int, end: int) -> Iterator[Block]:
    for at in range(start, end):
        yield Block(MigPlacement(at, 1), BlockState.FREE)


def span(placement: MigPlacement) -> str:
    """``4-7``, or ``3`` for one slice."""
    return str(placement.start) if placement.size == 1 else f"{placement.start}-{placement.end - 1}"


def blocks_of(maps: Iterable[GpuMap], *states: BlockState) -> Iterator[tuple[GpuMap, Block]]:
    for gpu_map in maps:
        for block in gpu_map.blocks:
            if block.state in states:
                yield gpu_map, block


def by_node(maps: Iterable[GpuMap]) -> Mapping[str, list[GpuMap]]:
    nodes: dict[str, list[GpuMap]] = {}
    for gpu_map in maps:
        nodes.setdefault(gpu_map.node, []).append(gpu_map)
    return nodes
