"""What ``gpu-dra shares`` prints: a table for people, JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from dra_driver.allocator.model import ClaimKey
from dra_driver.cli.mig.draw import table
from dra_driver.cli.shares.holding import Blocked, DeviceUse, Holder, NodeUse, Share, Use, Why
from dra_driver.cli.shares.words import (
    NOTHING_SHARED,
    amount,
    amounts,
    blocked_words,
    fence,
    is_for_matching,
    taint_words,
    unit,
)
from dra_driver.devices.shares import SHARES
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
    for number, holder in enumerate(holders):
        first = number == 0
        yield (
            *(cells if first else ("",) * len(cells)),
            *holder,
            *(of_device if first else ("",) * len(of_device)),
        )


def _holder_cells(row: DeviceUse, *, wide: bool) -> Iterator[tuple[str, ...]]:
    for holder in row.holders:
        text = f"{_name(holder)} ({_consumes(row, holder)})"
        if not wide:
            yield (text,)
            continue
        for number, share in enumerate(holder.shares):
            # A replica has no id of its own but its name.
            yield ("" if number else text, share.id or share.device, amounts(_in_order(share.consumes)))


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
    others = [use for use in row.uses if use.name != SHARES]
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
    return f"{use.name} {use.held}/{use.value}{unit(use.name)}"


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
    shown = sorted(row.uses, key=lambda use: use.name != SHARES)
    return amounts((use.name, use.largest) for use in shown if use.largest and not is_for_matching(use.name)) or _NONE


def _in_order(found: Mapping[str, Quantity]) -> list[tuple[str, Quantity]]:
    """Shares first."""
    return sorted(found.items(), key=lambda entry: entry[0] != SHARES)


def _device_notes(node: NodeUse, driver: str) -> Iterator[str]:
    """Taints, with all devices that have one, and whose devices are in the way of a whole GPU."""
    tainted: dict[tuple[str, str], list[str]] = {}
    for row in node.devices:
        for taint in row.taints:
            tainted.setdefault(taint_words(taint, driver), []).append(row.name)
    for (word, sentence), names in tainted.items():
        yield f"{', '.join(names)}: {word}: {sentence}"
    for row in node.devices:
        if row.blocked is not None and row.blocked.why is Why.HARDWARE and not row.is_mig:
            claims = ", ".join(map(str, row.blocked.claims))
            yield f"{row.name}: devices of the same hardware are in use by {claims}"


def shares_json(nodes: Sequence[NodeUse], driver: str) -> dict[str, Any]:
    """All that the tables say, in keys that stay::

        driver
        nodes[]       name, notes[]
          devices[]   device      the row's name: a replica device's is that of the device that it stands for
                      devices[]   the names that claims have: one, or the replica devices
                      uuid        of the device; null while a MIG device does not exist
                      gpuUUID, product
                      sharedBy    TimeSlicing, MPS, exclusive, or "not told"
                      fence       what stops a holder from using more
                      capacity    by name: value, held, free, and largest, what one more request could have of it; null
                                  when it could have nothing, and for what has no request policy. A device that is
                                  given as a whole, and a replica device, count as one of "shares"
                      blocked     null while a request could have something; else why (full, inUse, hardwareInUse,
                                  tainted, pool, policy), detail, claims[] (namespace, name)
                      taints[]    key, value, effect, word
                      holders[]   claim (namespace, name), pods[] (namespace, name, phase), consumes by capacity,
                                  shares[] (id, null for what is no share; device, consumes)

    Amounts are Kubernetes quantities, as text.
    """
    return {
        "driver": driver,
        "nodes": [
            {
                "name": node.name,
                "notes": list(node.notes),
                "devices": [_device_json(row, driver) for row in node.devices],
            }
            for node in nodes
        ],
    }


def _device_json(row: DeviceUse, driver: str) -> dict[str, Any]:
    return {
        "device": row.name,
        "devices": list(row.devices),
        "uuid": row.uuid or None,
        "gpuUUID": row.gpu_uuid or None,
        "product": row.product or None,
        "sharedBy": row.shared_by,
        "fence": fence(row),
        "capacity": {
            use.name: {
                "value": str(use.value),
                "held": str(use.held),
                "free": str(use.free),
                "largest": None if use.largest is None else str(use.largest),
            }
            for use in row.uses
        },
        "blocked": _blocked_json(row.blocked),
        "taints": [
            {"key": taint.key, "value": taint.value, "effect": taint.effect, "word": taint_words(taint, driver)[0]}
            for taint in row.taints
        ],
        "holders": [_holder_json(holder) for holder in row.holders],
    }


def _blocked_json(blocked: Blocked | None) -> dict[str, Any] | None:
    if blocked is None:
        return None
    return {
        "why": blocked.why.value,
        "detail": blocked.detail,
        "claims": [_claim_json(claim) for claim in blocked.claims],
    }


def _holder_json(holder: Holder) -> dict[str, Any]:
    return {
        "claim": _claim_json(holder.claim),
        "pods": [{"namespace": holder.claim.namespace, "name": pod.name, "phase": pod.phase} for pod in holder.pods],
        "consumes": _amounts_json(holder.consumes),
        "shares": [_share_json(share) for share in holder.shares],
    }


def _share_json(share: Share) -> dict[str, Any]:
    return {"id": share.id or None, "device": share.device, "consumes": _amounts_json(share.consumes)}


def _claim_json(claim: ClaimKey) -> dict[str, str]:
    return {"namespace": claim.namespace, "name": claim.name}


def _amounts_json(found: Mapping[str, Quantity]) -> dict[str, str]:
    return {name: str(quantity) for name, quantity in found.items()}
