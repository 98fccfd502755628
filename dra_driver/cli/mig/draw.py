"""Draws maps of GPUs for people: one line for each GPU, its memory slices from left to right, owners below.

The characters alone say everything, for pipes; colours come on top at a terminal. ASCII only, since a pipe may have any
encoding.

    [1g ml/a]  a claim's      (1g.10gb)  exists, free to be claimed
    {1g.10gb}  foreign        <1g.10gb>  would be given
    .          a free memory slice
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.text import Text

from dra_driver.cli.mig.gpu_map import WHOLE_GPU, Block, BlockState, GpuMap, blocks_of, by_node, span

NARROWEST, WIDEST = 72, 120
_MOST_PER_SLICE = 12
_WHOLE_WIDTH = 64  # of a GPU without memory slices

_BRACKETS: Mapping[BlockState, tuple[str, str]] = {
    BlockState.CLAIM: ("[", "]"),
    BlockState.FOREIGN: ("{", "}"),
    BlockState.IDLE: ("(", ")"),
    BlockState.PLANNED: ("<", ">"),
}
_STYLES: Mapping[BlockState, str] = {
    BlockState.FOREIGN: "black on yellow",
    BlockState.IDLE: "bold",
    BlockState.PLANNED: "bold black on bright_green",
    BlockState.FREE: "dim",
}
# Neighbours are told apart by colour; a claim has the same one wherever it is drawn.
_CLAIM_STYLES = ("white on blue", "black on cyan", "white on magenta", "black on white")
_LEGEND = {
    BlockState.CLAIM: "[claimed]",
    BlockState.IDLE: "(exists, unclaimed)",
    BlockState.FOREIGN: "{foreign}",
    BlockState.PLANNED: "<planned>",
    BlockState.FREE: ". free memory slice",
}


def draw(maps: Sequence[GpuMap], width: int) -> Iterator[Text]:
    """The maps of all nodes and a legend, for ``width`` columns; below 72 and above 120 it is drawn as for those."""
    for node, of_node in by_node(maps).items():
        yield from _node(node, of_node, max(NARROWEST, min(width, WIDEST)))
        yield Text()
    states = {block.state for _gpu_map, block in blocks_of(maps, *BlockState)}
    if states:
        yield Text("   ".join(words for state, words in _LEGEND.items() if state in states), style="dim")


def _node(node: str, maps: Sequence[GpuMap], width: int) -> Iterator[Text]:
    products = Counter(gpu_map.gpu.product_name for gpu_map in maps)
    title = ", ".join(f"{count} x {name}" for name, count in products.items())
    yield Text.assemble((node, "bold"), "  ", (title, "dim"))
    label = max(len(gpu_map.name) for gpu_map in maps) + 2
    shown = 0
    for gpu_map in maps:
        cell = _cell(gpu_map.slices, width - label)
        if gpu_map.slices not in (1, shown):
            yield _scale(gpu_map.slices, label, cell)
        shown = gpu_map.slices
        yield _line(gpu_map, label, cell)
    for gpu_map in maps:
        for note in gpu_map.notes:
            yield Text(f"  {gpu_map.name}: {note}", style="yellow")
    yield from _owners(maps)


def _cell(slices: int, room: int) -> int:
    """Columns for one memory slice."""
    tail = len("  12 free")
    return min(_WHOLE_WIDTH, room - tail) if slices == 1 else max(4, min(_MOST_PER_SLICE, (room - tail) // slices))


def _scale(slices: int, label: int, cell: int) -> Text:
    return Text((" " * label + "".join(str(at).ljust(cell) for at in range(slices))).rstrip(), style="dim")


def _line(gpu_map: GpuMap, label: int, cell: int) -> Text:
    line = Text(gpu_map.name.ljust(label), style="")
    for block in gpu_map.blocks:
        line.append_text(_block(block, cell * block.placement.size))
    free = gpu_map.free if gpu_map.slices > 1 else 0
    line.append(f"  {free} free" if free else "", style="dim")
    line.rstrip()
    return line


def _block(block: Block, width: int) -> Text:
    if block.state is BlockState.FREE:
        return Text(("free" if width > 2 * _MOST_PER_SLICE else ".").center(width), style="dim")
    opening, closing = _BRACKETS[block.state]
    return Text(f"{opening}{_label(block, width - 2).ljust(width - 2)}{closing}", style=_style(block))


def _style(block: Block) -> str:
    if block.state is not BlockState.CLAIM:
        return _STYLES[block.state]
    first = str(block.holders[0].claim)
    return _CLAIM_STYLES[zlib.crc32(first.encode()) % len(_CLAIM_STYLES)]


def _label(block: Block, room: int) -> str:
    """The longest of several ways to say it that has room; the shortest is cut."""
    short = block.profile if block.profile == WHOLE_GPU else block.profile.partition(".")[0]
    if block.state is not BlockState.CLAIM:
        ways = [block.profile, short]
    else:
        full = ", ".join(str(holder.claim) for holder in block.holders)
        names = ", ".join(holder.claim.name for holder in block.holders)
        ways = [f"{block.profile} {full}", f"{short} {full}", f"{short} {names}"]
    return next((way for way in ways if len(way) <= room), _cut(ways[-1], room))


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}~"


def _owners(maps: Sequence[GpuMap]) -> Iterator[Text]:
    """A line for each claim's device and for each foreign instance."""
    rows: list[tuple[str, ...]] = []
    for gpu_map, block in blocks_of(maps, BlockState.CLAIM, BlockState.FOREIGN):
        where = span(block.placement) if gpu_map.slices > 1 else "-"
        rows += [
            (gpu_map.name, where, holder.profile, str(holder.claim), ", ".join(holder.pods) or "-")
            for holder in block.holders
        ]
        if block.state is BlockState.FOREIGN:
            rows.append((gpu_map.name, where, block.profile, f"foreign: GPU instance {block.instance}", "-"))
    if rows:
        yield Text()
        yield from table(("GPU", "SLICES", "PROFILE", "CLAIM", "PODS"), rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ") -> Iterator[Text]:
    lines = [tuple(headings), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        yield Text(indent + text, style="" if number else "dim")
