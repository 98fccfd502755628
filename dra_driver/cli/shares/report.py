"""The table of ``gpu-dra shares``, for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from dra_driver.cli.mig.draw import table
from dra_driver.cli.shares.use import DeviceUse, Holder, NodeUse, Use, Why
from dra_driver.cli.shares.words import (
    NOTHING_SHARED,
    amount,
    amounts,
    blocked_words,
    fence,
    fence_mark,
    is_for_matching,
    number,
    taint_words,
    unit,
)
from dra_driver.devices.shares import COMPUTE, SHARES
from dra_driver.quantity import Quantity

_NONE = "-"
_WHOLE = "whole"
_HEADINGS = ("NODE", "DEVICE", "SHARED BY", "HELD", "FREE", "LARGEST")


def table_lines(nodes: Sequence[NodeUse], driver: str, *, wide: bool = False) -> Iterator[Text]:
    """A row for each device, its holders below each other, then what the rows do not say."""
    rows = [line for node in nodes for row in node.devices for line in _rows(row, driver, wide=wide)]
    if rows:
        extra = ("SHARE", "CONSUMES", "UUID", "PRODUCT", "FENCE") if wide else ()
        yield from table((*_HEADINGS, "HOLDERS", *extra), rows, indent="")
    notes = [f"{node.name}: {note}" for node in nodes for note in (*_device_notes(node, driver), *node.notes)]
    if rows and notes:
        yield Text()
    yield from (Text(note, style="yellow") for note in notes)
    if all(row.is_exclusive for node in nodes for row in node.devices):
        if rows or notes:
            yield Text()
        yield Text(NOTHING_SHARED)


def _rows(row: DeviceUse, driver: str, *, wide: bool) -> Iterator[tuple[str, ...]]:
    cells = (row.node, row.name, row.shared_by, _held(row), _free(row), _largest(row, driver))
    of_device = (row.uuid or row.gpu_uuid or _NONE, row.product or _NONE, fence(row)) if wide else ()
    holders = list(_holder_cells(row, wide=wide)) or [(_NONE,) * (3 if wide else 1)]
    for nth, holder in enumerate(holders):
        first = nth == 0
        yield (
            *(cells if first else ("",) * len(cells)),
            *holder,
            *(of_device if first else ("",) * len(of_device)),
        )


def _holder_cells(row: DeviceUse, *, wide: bool) -> Iterator[tuple[str, ...]]:
    for holder in row.holders:
        text = ", ".join((f"{_name(holder)} ({_consumes(row, holder)})", *_marks(row, holder)))
        if not wide:
            yield (text,)
            continue
        for nth, share in enumerate(holder.shares):
            # A replica has no id of its own but its name.
            yield ("" if nth else text, share.id or share.device, amounts(_in_order(share.consumes)))


def _marks(row: DeviceUse, holder: Holder) -> Mapping[str, str]:
    """What is wrong with the fences of its shares: a sentence by its word."""
    return dict(filter(None, (fence_mark(share, row) for share in holder.shares)))


def _name(holder: Holder) -> str:
    """The pods; a claim that no pod has is told as one."""
    if not holder.pods:
        return f"claim {holder.claim}"
    return " + ".join(f"{holder.claim.namespace}/{pod.name}" for pod in holder.pods)


def _consumes(row: DeviceUse, holder: Holder) -> str:
    if row.is_exclusive:
        return _WHOLE
    found = holder.consumes
    return amounts((use.name, found[use.name]) for use in _counted(row) if found.get(use.name)) or "nothing"


def _counted(row: DeviceUse) -> list[Use]:
    """The capacities that tell people how full the device is: shares, and whatever anybody has some of; where it has
    no shares, all that a request may ask for."""
    shares = row.use(SHARES)
    others = sorted((use for use in row.uses if use.name != SHARES), key=lambda use: _order(use.name))
    if shares:
        return [shares, *(use for use in others if use.held)]
    return [use for use in others if use.held or not is_for_matching(use.name)]


def _held(row: DeviceUse) -> str:
    if row.is_exclusive:
        return _WHOLE if row.holders else _NONE
    return ", ".join(_of(use) for use in _counted(row)) or _NONE


def _of(use: Use) -> str:
    if use.name == SHARES:
        return f"{use.held}/{amount(use.name, use.value)}"
    return f"{use.name} {number(use.name, use.held)}/{number(use.name, use.value)}{unit(use.name)}"


def _free(row: DeviceUse) -> str:
    """What is left, for somebody who may have it."""
    if row.blocked is not None:
        return _NONE
    if row.is_exclusive:
        return _WHOLE
    return amounts((use.name, use.free) for use in _counted(row)) or _NONE


def _largest(row: DeviceUse, driver: str) -> str:
    if row.blocked is not None:
        words = blocked_words(row.blocked, driver)
        return f"none: {words}" if words else _NONE
    if row.is_exclusive:
        return _WHOLE
    shown = sorted(row.uses, key=lambda use: _order(use.name))
    return amounts((use.name, use.largest) for use in shown if use.largest and not is_for_matching(use.name)) or _NONE


def _in_order(found: Mapping[str, Quantity]) -> list[tuple[str, Quantity]]:
    return sorted(found.items(), key=lambda entry: _order(entry[0]))


def _order(name: str) -> tuple[bool, bool]:
    """Shares first, and memory, which every fraction has, before compute."""
    return name != SHARES, name == COMPUTE


def _device_notes(node: NodeUse, driver: str) -> Iterator[str]:
    """Taints, with all devices that have one, fences that are not as they should be, with their holders, and whose
    devices are in the way of a whole GPU."""
    tainted: dict[tuple[str, str], list[str]] = {}
    for row in node.devices:
        for taint in row.taints:
            tainted.setdefault(taint_words(taint, driver), []).append(row.name)
    for (word, sentence), names in tainted.items():
        yield f"{', '.join(names)}: {word}: {sentence}"
    for row in node.devices:
        marked: dict[tuple[str, str], list[str]] = {}
        for holder in row.holders:
            for mark in _marks(row, holder).items():
                marked.setdefault(mark, []).append(_name(holder))
        for (word, sentence), names in marked.items():
            yield f"{row.name}: {word}: {sentence} ({', '.join(names)})"
    for row in node.devices:
        if row.blocked is not None and row.blocked.why is Why.HARDWARE and not row.is_mig:
            claims = ", ".join(map(str, row.blocked.claims))
            yield f"{row.name}: devices of the same hardware are in use by {claims}"
