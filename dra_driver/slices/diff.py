"""What has to be written so that a pool becomes what is desired: nothing when nothing changed. Pure.

The rules are those of consumers and of NVIDIA's driver's helper (k8s.io/dynamic-resource-allocation/resourceslice):
consumers read the slices of the highest generation only, and a pool is complete when their number is its
resourceSliceCount. So one slice may change in place, and anything more moves the whole pool to a new generation.
Devices that change places within their slice, or taints, are nothing more, in however many slices: between the writes a
consumer sees every device once, as it was or as it will be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dra_driver.slices.compare import carry_times, same_but_order_and_taints, same_content
from dra_driver.slices.cutting import PoolOwner, SliceSpec
from dra_driver.slices.decode import driver_of, generation_of, pool_of
from dra_driver.slices.encode import Obj, encode_slice

_INDEX_PREFIX = re.compile(r"([0-9a-f]{5,})-", re.ASCII)


@dataclass(frozen=True, slots=True)
class SliceDelete:
    """A deletion of exactly the object that was seen; ``uid`` and ``resource_version`` are its preconditions."""

    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Writes for one pool, to be done in the order deletes, updates, creates. All of them in any other order are safe
    too: between them the pool is incomplete, so nothing is allocated from it.

    ``generation`` is the pool's generation afterwards. ``updates`` carry the resourceVersion that was seen.
    """

    creates: tuple[Obj, ...] = field(hash=False)
    updates: tuple[Obj, ...] = field(hash=False)
    deletes: tuple[SliceDelete, ...]
    generation: int

    @property
    def is_empty(self) -> bool:
        return not (self.creates or self.updates or self.deletes)


def plan_writes(
    desired: Sequence[SliceSpec], existing: Iterable[Obj], *, owner: PoolOwner, generation_floor: int = 0
) -> WritePlan:
    """The writes that turn ``existing`` into ``desired``. Slices of other drivers and pools are passed over.

    ``generation_floor`` is the highest generation that was ever written for this pool, so that a new one is higher
    even after all slices were deleted. Obsolete and deleted are slices of a lower generation, of another Node object
    (a node that was made again under its name), and those whose index is not wanted.
    """
    present = [candidate for candidate in existing if _belongs_to(candidate, owner)]
    highest = max(map(generation_of, present), default=0)
    # A slice that waits for a finalizer is as good as gone, but its generation still counts for consumers.
    living = [candidate for candidate in present if not _metadata(candidate).get("deletionTimestamp")]
    matches = _match(desired, living, owner, highest)
    obsolete = [candidate for candidate in living if not any(candidate is match for match in matches.values())]

    encoded = {spec.index: encode_slice(spec, owner, generation=highest, count=len(desired)) for spec in desired}
    carry_times(encoded.values(), present)
    changed = [index for index, match in matches.items() if not _same(encoded[index], match)]
    others = [index for index in changed if not _offers_the_same(encoded[index], matches[index])]
    missing = [spec.index for spec in desired if spec.index not in matches]
    # Removing a slice that consumers ignore changes nothing for them.
    shrinks = any(generation_of(candidate) == highest for candidate in obsolete)
    stale = bool(changed) and highest < generation_floor
    if missing or shrinks or stale or len(others) > 1:
        generation = max(highest, generation_floor) + 1
        to_update = sorted(matches)
    else:
        generation = highest
        to_update = changed
    for wanted in encoded.values():
        wanted["spec"]["pool"]["generation"] = generation
    return WritePlan(
        creates=tuple(encoded[index] for index in missing),
        updates=tuple(_update(matches[index], encoded[index]) for index in to_update),
        deletes=tuple(_delete(candidate) for candidate in obsolete),
        generation=generation,
    )


def slice_index(name: str) -> int | None:
    """The index in a slice's name or generateName; None for a name of another form (drivers before 1.36)."""
    match = _INDEX_PREFIX.match(name)
    return int(match[1], 16) if match else None


def dropped_fields(sent: Obj, echoed: Obj) -> tuple[str, ...]:
    """Paths below ``spec`` that were sent and that the server's answer lacks: a feature gate is off there.

    Empty lists and objects are not missed. See ``features.ApiFeatures.without`` for what follows from the answer.
    """
    return tuple(_dropped(sent.get("spec") or {}, echoed.get("spec"), "spec"))


def _dropped(sent: Any, echoed: Any, path: str) -> Iterator[str]:
    if sent in (None, [], {}):
        return
    if echoed in (None, [], {}):
        yield path
    elif isinstance(sent, dict) and isinstance(echoed, dict):
        for name, value in sent.items():
            inner = f"{path}[{name}]" if _is_data_key(path) else f"{path}.{name}"
            yield from _dropped(value, echoed.get(name), inner)
    elif isinstance(sent, list) and isinstance(echoed, list):
        for index, value in enumerate(sent):
            yield from _dropped(value, echoed[index] if index < len(echoed) else None, f"{path}[{index}]")


def _is_data_key(path: str) -> bool:
    return path.endswith((".attributes", ".capacity", ".counters"))


def _belongs_to(candidate: Obj, owner: PoolOwner) -> bool:
    return driver_of(candidate) == owner.driver and pool_of(candidate) == owner.pool


def _match(desired: Sequence[SliceSpec], living: list[Obj], owner: PoolOwner, highest: int) -> dict[int, Obj]:
    """Existing slices by the index that they are kept for. Of two for one index, the older by name order is kept."""
    wanted = {spec.index for spec in desired}
    matches: dict[int, Obj] = {}
    for candidate in sorted(living, key=lambda item: str(_metadata(item).get("name"))):
        index = slice_index(str(_metadata(candidate).get("name")))
        if (
            index in wanted
            and index not in matches
            and generation_of(candidate) == highest
            and candidate["spec"].get("nodeName") == owner.node_name
            and _is_owned_by(candidate, owner)
        ):
            matches[index] = candidate
    return matches


def _is_owned_by(candidate: Obj, owner: PoolOwner) -> bool:
    references = _metadata(candidate).get("ownerReferences") or []
    return any(reference.get("kind") == "Node" and reference.get("uid") == owner.node_uid for reference in references)


def _same(wanted: Obj, match: Obj) -> bool:
    return _counts_the_same(wanted, match) and same_content(wanted["spec"], match["spec"])


def _offers_the_same(wanted: Obj, match: Obj) -> bool:
    return _counts_the_same(wanted, match) and same_but_order_and_taints(wanted["spec"], match["spec"])


def _counts_the_same(wanted: Obj, match: Obj) -> bool:
    counted: bool = match["spec"]["pool"].get("resourceSliceCount") == wanted["spec"]["pool"]["resourceSliceCount"]
    return counted


def _update(match: Obj, wanted: Obj) -> Obj:
    """The object that replaces ``match``: its identity and labels, our spec."""
    metadata = {name: value for name, value in _metadata(match).items() if name != "managedFields"}
    return {**wanted, "metadata": {**metadata, "ownerReferences": _owners(match, wanted)}}


def _owners(match: Obj, wanted: Obj) -> list[Obj]:
    ours: list[Obj] = wanted["metadata"]["ownerReferences"]
    others = [
        reference
        for reference in _metadata(match).get("ownerReferences") or []
        if reference.get("uid") != ours[0]["uid"] and not reference.get("controller")
    ]
    return ours + others


def _delete(candidate: Obj) -> SliceDelete:
    metadata = _metadata(candidate)
    return SliceDelete(metadata["name"], metadata.get("uid", ""), metadata.get("resourceVersion", ""))


def _metadata(candidate: Obj) -> Obj:
    metadata: Obj = candidate.get("metadata") or {}
    return metadata
