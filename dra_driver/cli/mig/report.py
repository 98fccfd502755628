"""What ``gpu-dra mig`` prints about its findings: sentences for people, JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from dra_driver.allocator.model import ClaimKey
from dra_driver.cli.mig.draw import draw, table
from dra_driver.cli.mig.gpu_map import Block, GpuMap, by_node, lies_at, span
from dra_driver.cli.mig.planning import Blockers, MigPlan, Placed
from dra_driver.cli.mig.reading import ClusterView
from dra_driver.devices.naming import MigName, gpu_name, parse_name

_HOLDERS_SHOWN = 6


def status_lines(view: ClusterView, maps: Sequence[GpuMap], width: int) -> Iterator[Text]:
    """The maps, and what the plugins say about their nodes."""
    yield from draw(maps, width)
    for node in view.nodes:
        if not node.gpus:
            yield Text(f"{node.name}: no GPU")
        for note in node.notes:
            yield Text(f"{node.name}: {note}", style="yellow")


def plan_lines(
    found: MigPlan, view: ClusterView, maps: Sequence[GpuMap], pods: Mapping[ClaimKey, str], width: int
) -> Iterator[Text]:
    """``maps``: of all GPUs with the plan drawn in; those that get something are shown."""
    rows = [(each.profile, each.node, *_place(each, view), each.device) for each in found.placed]
    rows += [(each.profile, "-", "-", "-", f"no place for {each.count}") for each in found.missing]
    yield from table(("PROFILE", "NODE", "GPU", "SLICES", "DEVICE"), rows, indent="")
    yield Text()
    touched = {(each.node, parse_name(each.device).minor) for each in found.placed}
    shown = [gpu_map for gpu_map in maps if (gpu_map.node, gpu_map.gpu.minor) in touched]
    if shown:
        yield from draw(shown, width)
        yield Text()
    for each in found.missing:
        yield Text(blocked(each), style="red")
    if found.fits:
        yield Text("Everything fits.", style="green")
    elif found.better_order:
        yield Text(f"Everything fits when created in this order: {', '.join(found.better_order)}.", style="green")
    elif found.move:
        yield Text(f"Everything fits once {_moves(found.move, pods)}.", style="green")
    else:
        yield Text("No set of up to three claims makes room by leaving.", style="red")


def blocked(each: Blockers) -> str:
    """Why there is no more place for a profile, in one sentence."""
    if not each.places:
        return f"{each.profile}: none is published; static GPUs offer what exists on them, GPUs with mode off nothing."
    parts = []
    if each.taken:
        shown = ", ".join(map(str, each.holders[:_HOLDERS_SHOWN])) or "devices of this plan"
        more = len(each.holders) - _HOLDERS_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        parts.append(f"{each.taken} taken wholly or in part by {shown}{rest}")
    parts += [f"{count} tainted {taint}" for taint, count in each.tainted.items()]
    return f"{each.profile}: {each.places} place{'s' if each.places > 1 else ''}, {', '.join(parts)}."


def _moves(claims: Sequence[ClaimKey], pods: Mapping[ClaimKey, str]) -> str:
    named = [f"{claim} ({pods[claim]})" if pods.get(claim) else str(claim) for claim in claims]
    listed = f"{', '.join(named[:-1])} and {named[-1]} have" if len(named) > 1 else f"{named[0]} has"
    return f"{listed} left"


def _place(placed: Placed, view: ClusterView) -> tuple[str, str]:
    name = parse_name(placed.device)
    gpu = next((gpu for node in view.nodes if node.name == placed.node for gpu in node.gpus
                if gpu.minor == name.minor), None)  # fmt: skip
    where = lies_at(gpu, name) if gpu else None
    return gpu_name(name.minor), span(where[0]) if where else "-"


def status_json(view: ClusterView, maps: Sequence[GpuMap]) -> dict[str, Any]:
    of_node = by_node(maps)
    return {
        "driver": view.driver,
        "nodes": [
            {
                "name": node.name,
                "notes": list(node.notes),
                "gpus": [_gpu_json(each) for each in of_node.get(node.name, ())],
            }
            for node in view.nodes
        ],
    }


def plan_json(found: MigPlan, wanted: Mapping[str, int]) -> dict[str, Any]:
    return {
        "wanted": dict(wanted),
        "fits": found.fits,
        "placed": [{"profile": each.profile, "node": each.node, "device": each.device} for each in found.placed],
        "missing": [
            {
                "profile": each.profile,
                "count": each.count,
                "places": each.places,
                "taken": each.taken,
                "claims": [_claim_json(holder) for holder in each.holders],
                "tainted": dict(each.tainted),
            }
            for each in found.missing
        ],
        "move": [_claim_json(claim) for claim in found.move],
        "betterOrder": list(found.better_order),
    }


def _gpu_json(gpu_map: GpuMap) -> dict[str, Any]:
    gpu = gpu_map.gpu
    return {
        "name": gpu_map.name,
        "uuid": gpu.uuid,
        "product": gpu.product_name,
        "memorySlices": gpu_map.slices,
        "free": gpu_map.free,
        "blocks": [_block_json(block) for block in gpu_map.blocks],
        "notes": list(gpu_map.notes),
    }


def _block_json(block: Block) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start": block.placement.start,
        "size": block.placement.size,
        "state": block.state.value,
    }
    if block.profile:
        found["profile"] = block.profile
    if block.instance is not None:
        found["gpuInstance"] = block.instance
    if block.holders:
        found["claims"] = [
            {**_claim_json(each.claim), "device": each.device, "profile": each.profile, "pods": list(each.pods)}
            for each in block.holders
        ]
    return found


def _claim_json(claim: ClaimKey) -> dict[str, str]:
    return {"namespace": claim.namespace, "name": claim.name}


def planned_names(found: MigPlan) -> dict[str, list[MigName]]:
    """The planned MIG devices by node."""
    names: dict[str, list[MigName]] = {}
    for each in found.placed:
        name = parse_name(each.device)
        if isinstance(name, MigName):
            names.setdefault(each.node, []).append(name)
    return names
