"""What both drivers publish, answer and write, compared field by field. Pure.

What each run chooses by itself (object names, the claim's UID) is taken out before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from e2e.bench_peer.drivers import Side

_MISSING = object()
_SHOWN = 40


@dataclass(slots=True)
class Seen:
    """By what it is (``slices, whole GPUs``) and side: what was seen first."""

    things: dict[str, dict[Side, Any]] = field(default_factory=dict)

    def add(self, what: str, side: Side, thing: Any) -> None:
        self.things.setdefault(what, {}).setdefault(side, thing)

    def lines(self) -> Iterator[str]:
        """Each thing that both showed, with its differences."""
        for what, sides in self.things.items():
            if len(sides) < len(Side):
                continue
            found = list(differences(sides[Side.PEER], sides[Side.OURS]))
            number = "the same" if not found else f"{len(found)} difference{'s' if len(found) > 1 else ''}"
            yield f"compared: {what}: {number}"
            yield from (f"    {line}" for line in found[:_SHOWN])
            if len(found) > _SHOWN:
                yield f"    ... and {len(found) - _SHOWN} more"


def differences(peer: Any, ours: Any, path: str = "") -> Iterator[str]:
    """One line for each field that differs, by its path: ``/gpu-0/capacity/memory/value: peer "1", ours "2"``."""
    if isinstance(peer, Mapping) and isinstance(ours, Mapping):
        for key in sorted(peer.keys() | ours.keys()):
            yield from differences(peer.get(key, _MISSING), ours.get(key, _MISSING), f"{path}/{key}")
    elif isinstance(peer, list) and isinstance(ours, list):
        for index in range(max(len(peer), len(ours))):
            yield from differences(_entry(peer, index), _entry(ours, index), f"{path}/{index}")
    elif ours is _MISSING:
        yield f"{path}: only the peer has it: {json.dumps(peer)}"
    elif peer is _MISSING:
        yield f"{path}: only ours has it: {json.dumps(ours)}"
    elif peer != ours:
        yield f"{path}: peer {json.dumps(peer)}, ours {json.dumps(ours)}"


def published(slices: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Devices and counter sets by name; which slice holds them is the driver's own affair."""
    found: dict[str, Any] = {}
    for entry in slices:
        for kind in ("devices", "sharedCounters"):
            found |= {named["name"]: _without_name(named) for named in entry["spec"].get(kind) or ()}
    return found


def without(thing: Any, texts: Mapping[str, str]) -> Any:
    """``thing`` with each of ``texts`` replaced wherever it stands, in keys too."""
    text = json.dumps(thing)
    for old, new in texts.items():
        text = text.replace(old, new)
    return json.loads(text)


def _without_name(named: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in named.items() if key != "name"}


def _entry(entries: Sequence[Any], index: int) -> Any:
    return entries[index] if index < len(entries) else _MISSING
