"""``gpu-dra get``: what a cluster has, in the columns that matter for GPUs, or as YAML or JSON.

Reads only. Without a kubeconfig it asks the demo that was left up.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dra_driver.cli.cluster import connect_or_demo
from dra_driver.cli.get_tables import COLUMNS, Column, rows
from dra_driver.errors import DriverError
from dra_driver.kube import interface as kube
from dra_driver.kube.interface import ApiError, KubeApi, NotFound, Obj, Resource
from dra_driver.kube.lists import list_all

_RESOURCES: Mapping[str, Resource] = {
    "slices": kube.RESOURCE_SLICES,
    "claims": kube.RESOURCE_CLAIMS,
    "pods": kube.PODS,
    "nodes": kube.NODES,
    "inventories": kube.NODE_INVENTORIES,
    "events": kube.EVENTS,
}


@dataclass(frozen=True, slots=True)
class Question:
    kind: str
    name: str | None
    namespace: str | None


def run(kind: str, name: str | None, namespace: str | None, output: str, kubeconfig: Path | None) -> int:
    """Returns the exit code: 0, or 1 when the cluster could not be asked or has no such object."""
    try:
        api = connect_or_demo(kubeconfig)
        objects = ask(api, Question(kind, name, namespace))
    except (DriverError, ApiError) as error:
        print(f"gpu-dra get {kind}: {error}", file=sys.stderr)
        return 1
    print(_PRINTERS[output](kind, objects, name is not None))
    return 0


def ask(api: KubeApi, question: Question) -> list[Obj]:
    """Raises ApiError; NotFound when a named object is in no namespace that was asked."""
    resource = _RESOURCES[question.kind]
    namespace = question.namespace if resource.namespaced else None
    found = list_all(api, resource, namespace)
    if question.name is not None:
        found = [obj for obj in found if obj["metadata"]["name"] == question.name]
        if not found:
            raise NotFound(f"there is no {resource.kind} named {question.name}")
    # A list does not repeat apiVersion and kind in its items; a reader of one object wants them.
    return [{"apiVersion": resource.api_version, "kind": resource.kind, **obj} for obj in found]


def _document(objects: Sequence[Obj], single: bool) -> Obj:
    return objects[0] if single and len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def _yaml(_kind: str, objects: Sequence[Obj], single: bool) -> str:
    return yaml.safe_dump(_document(objects, single), sort_keys=False, width=120).rstrip()


def _json(_kind: str, objects: Sequence[Obj], single: bool) -> str:
    return json.dumps(_document(objects, single), indent=2)


def _table(kind: str, objects: Sequence[Obj], _single: bool) -> str:
    return _laid_out([column for column in COLUMNS[kind] if not column.wide], kind, objects)


def _wide(kind: str, objects: Sequence[Obj], _single: bool) -> str:
    return _laid_out(COLUMNS[kind], kind, objects)


def _laid_out(columns: Sequence[Column], kind: str, objects: Sequence[Obj]) -> str:
    lines = rows(columns, objects)
    if not lines:
        return f"no {kind}"
    table = [tuple(column.heading for column in columns), *lines]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


_PRINTERS: Mapping[str, Callable[[str, Sequence[Obj], bool], str]] = {
    "table": _table,
    "wide": _wide,
    "json": _json,
    "yaml": _yaml,
}
