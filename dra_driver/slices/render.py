"""Write plans as YAML for people: what ``--dry-run`` prints."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from dra_driver.slices.diff import WritePlan
from dra_driver.slices.encode import Obj


def render_plan(plan: WritePlan) -> str:
    """YAML documents, with the fields in the order of the API, each under a comment that says what would be done with
    it."""
    if plan.is_empty:
        return f"# nothing to write: the pool is as desired at generation {plan.generation}\n"
    return "".join(_steps(plan))


def _steps(plan: WritePlan) -> Iterator[str]:
    for delete in plan.deletes:
        yield f"# delete ResourceSlice {delete.name} (uid {delete.uid})\n"
    for verb, slices in (("update", plan.updates), ("create", plan.creates)):
        for slice_obj in slices:
            metadata = slice_obj["metadata"]
            name = metadata.get("name") or f"{metadata['generateName']}*"
            yield f"# {verb} ResourceSlice {name} at generation {plan.generation}\n---\n{_document(slice_obj)}"


def _document(slice_obj: Obj) -> str:
    return yaml.safe_dump(slice_obj, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)
