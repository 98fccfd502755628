"""CRDs: the rules of structural schemas, and agreement of the schemas with what we write and accept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml
from pydantic import Field

from api import generate
from api.base import ApiModel
from api.claim_config import API_VERSION, decode
from api.crd import Definition, crd, structural
from api.driver_config import load
from api.strict import DecodeError

# What apiextensions.k8s.io/v1 JSONSchemaProps has, as far as we use it. Unknown keywords are refused by the server.
KNOWN = {
    "type", "description", "properties", "items", "additionalProperties", "required", "enum", "pattern", "minLength",
    "maxLength", "minItems", "maxItems", "minimum", "maximum", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


CRD_FOLDERS = (generate.CRDS, generate.CHART_CRD.parent)


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


@pytest.mark.parametrize("definition", generate.DEFINITIONS, ids=lambda definition: definition.kind)
def test_schemas_are_structural(definition: Definition) -> None:
    document = crd(definition)
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in nodes(schema):
        assert set(node) <= KNOWN, path
        assert "type" in node, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert set(node.get("required", ())) <= set(node.get("properties", ())), path
    assert schema["properties"]["metadata"] == {"type": "object"}
    assert document["metadata"]["name"] == f"{definition.plural}.{definition.group}"
    assert document["spec"]["scope"] == "Cluster"


def committed(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((generate.ROOT / generate.CRDS / name).read_text())
    return document


def test_node_inventory_has_a_status_subresource_and_columns() -> None:
    version = committed("nodeinventories.yaml")["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    columns = {column["name"]: column["jsonPath"] for column in version["additionalPrinterColumns"]}
    assert list(columns) == ["GPUs", "Product", "Driver", "Registered", "Plugin", "Age"]
    schema = version["schema"]["openAPIV3Schema"]
    for path in columns.values():
        node = schema
        for name in path.removeprefix(".").replace("[0]", ".[]").split("."):
            if node == {"type": "object"}:
                break  # metadata is the server's
            node = node["items"] if name == "[]" else node["properties"][name]


def test_every_crd_is_one_that_the_chart_installs() -> None:
    files = {folder: {path.name for path in (generate.ROOT / folder).glob("*.yaml")} for folder in CRD_FOLDERS}
    assert (
        files[generate.CRDS] == files[generate.CHART_CRD.parent] == {f"{d.plural}.yaml" for d in generate.DEFINITIONS}
    )


def test_computed_fields_are_stored_but_not_required() -> None:
    version = committed("nodeinventories.yaml")["spec"]["versions"][0]
    machine = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["machine"]
    assert machine["properties"]["gpuCount"]["type"] == "integer"
    assert machine["required"] == ["driverVersion", "cudaDriverVersion"]


class Part(ApiModel):
    size: int = 0
    names: dict[str, int] = Field(default_factory=dict)
    anything: dict[str, Any] = Field(default_factory=dict)


class Whole(ApiModel):
    part: Part | None = Field(default=None, description="The ``part``,\n  if any.")
    parts: list[Part]
    kind: str = Field(default="x", min_length=1)


def test_conversion() -> None:
    part = {
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "names": {"type": "object", "additionalProperties": {"type": "integer"}},
            "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    assert structural(Whole.model_json_schema()) == {
        "type": "object",
        "properties": {
            "part": {**part, "description": "The part, if any."},
            "parts": {"type": "array", "items": part},
            "kind": {"type": "string", "minLength": 1},
        },
        "required": ["parts"],
    }


def test_a_union_without_a_structural_form_is_an_error() -> None:
    class Mixed(ApiModel):
        value: int | list[int] = 0

    with pytest.raises(ValueError, match="no structural schema"):
        structural(Mixed.model_json_schema())


def accepts(kind: str, data: object) -> bool:
    """Whether the committed JSON schema takes the data."""
    path: Path = generate.ROOT / generate.SCHEMAS / f"{kind.lower()}.json"
    validate = fastjsonschema.compile(yaml.safe_load(path.read_text()))
    try:
        validate(data)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sharing": {"strategy": "MPS", "mpsConfig": {"defaultPinnedDeviceMemoryLimit": "10Gi"}}},
        {"sharing": {"strategy": "MPS", "mpsConfig": {"defaultPinnedDeviceMemoryLimit": 2**30}}},
        {"sharing": {"strategy": "MPS", "mpsConfig": {"defaultPerDevicePinnedMemoryLimit": {"0": "1Gi"}}}},
        {"sharing": {"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}}},
        {"sharing": {"strategy": "TimeSlicing", "timeSlicingConfig": {"intervl": "Long"}}},
        {"sharing": {"strategy": "Mps"}},
        {"sharing": {"strategy": "MPS", "mpsConfig": {"defaultActiveThreadPercentage": 101}}},
        {"sharing": {"strategy": "MPS", "mpsConfig": {"defaultPinnedDeviceMemoryLimit": "10 GB"}}},
        {"sharing": []},
    ],
)
def test_the_json_schema_agrees_with_the_decoder(fields: dict[str, Any]) -> None:
    data = {"apiVersion": API_VERSION, "kind": "GpuConfig", **fields}
    try:
        decode(data)
        decoded = True
    except DecodeError:
        decoded = False
    assert accepts("GpuConfig", data) is decoded


def test_the_json_schema_takes_a_whole_configuration() -> None:
    wire = load(None, {"HTTP_ENDPOINT": ":80", "FEATURE_GATES": "ContextualLogging=true"}, {}).to_wire()
    assert accepts("DriverConfiguration", wire)
    wire["spec"]["featureGates"]["Foo"] = False
    assert not accepts("DriverConfiguration", wire)
