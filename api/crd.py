"""CustomResourceDefinitions from our models.

A CRD takes a narrower schema than pydantic writes ("structural", apiextensions.k8s.io/v1): no ``$ref``, no type in
``anyOf``, no ``additionalProperties: false`` beside properties (unknown fields are pruned anyway). Defaults are left
out too: a default that the API server wrote into an object would outlive the version of the driver that had it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_REF = "#/$defs/"
_KEEP = "x-kubernetes-preserve-unknown-fields"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``. ``priority`` 1 shows it only with ``-o wide``."""

    name: str
    json_path: str
    type: str = "string"
    description: str = ""
    priority: int = 0

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.json_path}
        if self.description:
            wire["description"] = self.description
        if self.priority:
            wire["priority"] = self.priority
        return wire


@dataclass(frozen=True, slots=True)
class Definition:
    """One of our resource types: its model and what only the CRD says about it."""

    model: type[BaseModel]
    group: str
    version: str
    kind: str
    plural: str
    short_names: Sequence[str] = ()
    columns: Sequence[Column] = ()

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}"


def crd(definition: Definition) -> dict[str, Any]:
    """The CustomResourceDefinition of a cluster-scoped resource type with a status."""
    version: dict[str, Any] = {
        "name": definition.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": object_schema(definition.model)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [column.to_wire() for column in definition.columns],
    }
    names: dict[str, Any] = {
        "kind": definition.kind,
        "listKind": f"{definition.kind}List",
        "plural": definition.plural,
        "singular": definition.kind.lower(),
    }
    if definition.short_names:
        names["shortNames"] = list(definition.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {"group": definition.group, "scope": "Cluster", "names": names, "versions": [version]},
    }


def object_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a whole object. apiVersion, kind and metadata are the API server's to check."""
    # Serialization, since that is what is stored: it has the fields that we compute, too.
    schema = structural(model.model_json_schema(by_alias=True, mode="serialization"))
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    return schema


def structural(schema: Mapping[str, Any]) -> Schema:
    """A JSON schema of pydantic's as a structural one. ValueError when it has a union that has none."""
    return _convert(schema, schema.get("$defs", {}))


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix(_REF)]
        # What stands beside the reference (a field's description) goes before the target's own.
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        return _convert(_without_union(schema), definitions)
    out: Schema = {}
    for key, value in schema.items():
        if key in ("$defs", "title", "default", "readOnly", "format"):
            continue
        if key == "properties":
            out[key] = {name: _convert(entry, definitions) for name, entry in value.items()}
        elif key == "items":
            out[key] = _convert(value, definitions)
        elif key == "additionalProperties":
            out |= _additional(value, schema, definitions)
        elif key == "const":
            out["enum"] = [value]
        elif key == "description":
            out[key] = " ".join(value.replace("``", "").split())
        elif key == "required":
            out |= _required(value, schema)
        else:
            out[key] = value
    return out


def _without_union(schema: Mapping[str, Any]) -> Schema:
    """``X | None`` becomes X: we leave out what is unset, so null never has to be stored."""
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    branches = [branch for branch in schema["anyOf"] if branch.get("type") != "null"]
    if len(branches) == 1:
        return {**branches[0], **rest}
    raise ValueError(f"a union has no structural schema: {schema['anyOf']}")


def _additional(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    if "properties" in schema or value is False:
        return {}
    if value is True:
        return {_KEEP: True}
    return {"additionalProperties": _convert(value, definitions)}


def _required(names: Sequence[str], schema: Mapping[str, Any]) -> Schema:
    """Computed fields are not asked for: an older version does not write them."""
    properties = schema.get("properties", {})
    wanted = [name for name in names if not properties.get(name, {}).get("readOnly")]
    return {"required": wanted} if wanted else {}
