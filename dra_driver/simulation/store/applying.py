"""Server-side apply over plain objects: merge, conflicts between managers, removal of what is no longer applied.

Pure. A subset of structured-merge-diff, with these limits: ownership is recorded from an object's first apply on, all
earlier fields belong to the manager ``before-first-apply`` (as in the real server for objects from before it had
apply); nested maps have no owner of their own, only their leaves; union types and defaults of list keys are unknown.
"""

from __future__ import annotations

import json
from typing import Any

from dra_driver.kube.interface import Conflict, Obj
from dra_driver.simulation.store.ownership import (
    FieldPath,
    ListKeysOf,
    Manager,
    Owners,
    decode_owners,
    encode_owners,
    owned_paths,
    readable,
    remove_at,
    value_at,
)
from dra_driver.simulation.store.patching import clone, strategic_merge

_BEFORE = Manager("before-first-apply", "Update")


def apply(
    live: Obj | None, applied: Obj, manager: Manager, keys_of: ListKeysOf, *, force: bool, has_status: bool
) -> tuple[Obj, Owners]:
    """The object after an apply, and its owners. Raises Conflict, unless ``force``, naming managers and fields."""
    paths = frozenset(
        p
        for p in owned_paths(applied, keys_of)
        if not has_status or (p[0] == "f:status") == (manager.subresource == "status")
    )
    if live is None:
        return clone(applied), {manager: paths}
    managed = live["metadata"].get("managedFields")
    owners = decode_owners(managed) if managed else {_BEFORE: owned_paths(live, keys_of)}
    _take(owners, live, applied, manager, paths, keys_of, force=force)
    merged: Obj = strategic_merge(clone(live), _only(applied, paths), keys_of)
    kept = paths.union(*(owned for other, owned in owners.items() if other != manager))
    for path in sorted(owners.get(manager, frozenset()) - kept, key=len):  # an item before what is in it
        if not _is_key(path) and not any(other[: len(path)] == path for other in kept):
            remove_at(merged, path, keys_of)
    owners[manager] = paths
    return merged, owners


def _take(
    owners: Owners,
    live: Obj,
    applied: Obj,
    manager: Manager,
    paths: frozenset[FieldPath],
    keys_of: ListKeysOf,
    *,
    force: bool,
) -> None:
    changed = {p for p in paths if not _is_item(p) and value_at(live, p, keys_of) != value_at(applied, p, keys_of)}
    conflicts = [
        (other, path) for other, owned in owners.items() if other != manager for path in sorted(owned & changed)
    ]
    if conflicts and not force:
        raise _conflict(conflicts, live["apiVersion"])
    for other, path in conflicts:
        owners[other] -= {path}


def _is_item(path: FieldPath) -> bool:
    return path[-1].startswith(("k:", "v:"))


def _is_key(path: FieldPath) -> bool:
    """Whether this is a key field of a list item: it stays as long as the item does."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def _only(applied: Obj, paths: frozenset[FieldPath]) -> Obj:
    """What of ``applied`` this apply is about: not the status in a main apply, and the other way round."""
    tops = {path[0][2:] for path in paths}
    return {key: value for key, value in applied.items() if key in tops}


def _conflict(conflicts: list[tuple[Manager, FieldPath]], api_version: str) -> Conflict:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{other.name}" using {api_version}',
            "field": readable(path),
        }
        for other, path in conflicts
    ]
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return Conflict(f"Apply failed with {count}: {listed}", reason="Conflict", details={"causes": causes})


def follow_update(old: Obj, new: Obj, manager: Manager, keys_of: ListKeysOf) -> Owners | None:
    """The owners after a write that was not an apply; None while nothing was ever applied to the object."""
    managed = old["metadata"].get("managedFields")
    if not managed:
        return None
    before, after = owned_paths(old, keys_of), owned_paths(new, keys_of)
    changed = {
        p
        for p in after
        if p not in before or (not _is_item(p) and value_at(old, p, keys_of) != value_at(new, p, keys_of))
    }
    gone = before - after
    owners = {other: owned - gone - changed for other, owned in decode_owners(managed).items()}
    if changed:
        owners[manager] = owners.get(manager, frozenset()) | changed
    return owners


def set_owners(obj: Obj, owners: Owners, now: str, before: Any) -> None:
    """Write owners into the object's managedFields; ``before`` are its present ones."""
    managed = encode_owners(owners, obj["apiVersion"], now, before or [])
    if managed:
        obj["metadata"]["managedFields"] = managed
    else:
        obj["metadata"].pop("managedFields", None)
