"""Writes what follows from the models: CRDs, JSON schemas, the manual's tables, parts of the chart.

``python -m api.generate [--check]``.

``--check`` writes nothing and fails when a file is not current; a test does the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel

from api import tables
from api.claim_config import KINDS
from api.crd import Column, Definition, crd
from api.driver_config import KIND as DRIVER_CONFIGURATION
from api.driver_config import DriverConfiguration, DriverSpec
from api.feature_gates import FEATURE_GATES, GateState
from api.node_inventory import NodeInventory

ROOT = Path(__file__).resolve().parent.parent

CRDS = Path("deploy/crds")
SCHEMAS = CRDS / "schema"
CONFIGURATION_PAGE = Path("docs/user/configuration.md")
CLAIM_CONFIG_PAGE = Path("docs/user/claim-config.md")
CHART = Path("deploy/chart/gpu-dra")
CHART_CRD = CHART / "files/nodeinventories.yaml"  # a chart cannot reach files outside of its folder
CHART_MISSING_GATES = CHART / "files/missing-feature-gates.json"
VALUES_SCHEMA = CHART / "values.schema.json"

DEFINITIONS = (
    Definition(
        model=NodeInventory,
        group="gpu-dra.dev",
        version="v1alpha1",
        kind="NodeInventory",
        plural="nodeinventories",
        short_names=("gpuinv",),
        columns=(
            Column("GPUs", ".status.machine.gpuCount", "integer"),
            Column("Product", ".status.machine.products[0].name", description="The first product."),
            Column("Driver", ".status.machine.driverVersion"),
            Column("Registered", ".status.registration.registered", "boolean"),
            Column("Plugin", ".status.registration.pluginVersion", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    ),
)


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Every generated file by its path below ``root``. Reads the manual's pages and the chart's schema of its values,
    whose other parts it keeps."""
    files = {CRDS / f"{d.plural}.yaml": _yaml(crd(d)) for d in DEFINITIONS}
    models: Mapping[str, type[BaseModel]] = {
        **KINDS,
        **{d.kind: d.model for d in DEFINITIONS},
        DRIVER_CONFIGURATION: DriverConfiguration,
    }
    files |= {SCHEMAS / f"{kind.lower()}.json": _schema(model) for kind, model in models.items()}
    pages = {
        CONFIGURATION_PAGE: {
            "settings": tables.settings_table(),
            "file-settings": tables.file_settings_table(),
            "identity": tables.identity_table(),
            "feature-gates": tables.gates_table(),
        },
        CLAIM_CONFIG_PAGE: {kind: tables.fields_table(model) for kind, model in KINDS.items()},
    }
    for page, blocks in pages.items():
        text = (root / page).read_text(encoding="utf-8")
        for name, block in blocks.items():
            text = replace_block(text, name, block)
        files[page] = text
    files[CHART_CRD] = files[CRDS / "nodeinventories.yaml"]
    files[CHART_MISSING_GATES] = json.dumps(missing_gates(), indent=2) + "\n"
    files[VALUES_SCHEMA] = with_configuration((root / VALUES_SCHEMA).read_text(encoding="utf-8"))
    return files


def missing_gates() -> dict[str, str]:
    """Gates that the programs refuse to start with, and what for; the chart refuses them when it is rendered."""
    return {gate.name: gate.summary for gate in FEATURE_GATES.values() if gate.state is GateState.MISSING}


def with_configuration(values_schema: str) -> str:
    """The chart's JSON schema with ``config``, ``mig``, ``sharing`` and ``featureGates`` as DriverSpec has them."""
    schema = json.loads(values_schema)
    spec = DriverSpec.model_json_schema(by_alias=True)
    schema["$defs"] = spec.pop("$defs")
    own_values = ("mig", "sharing", "featureGates")
    schema["properties"] |= {"config": spec, **{name: spec["properties"][name] for name in own_values}}
    return json.dumps(schema, indent=2) + "\n"


def replace_block(text: str, name: str, block: str) -> str:
    """``text`` with ``block`` between its markers. ValueError when the page has no such markers."""
    begin, end = f"<!-- begin generated {name} -->\n", f"<!-- end generated {name} -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no block named {name}: the page needs the lines {begin.strip()} and {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"


def _yaml(document: Mapping[str, object]) -> str:
    body = yaml.safe_dump(document, sort_keys=False, width=120)
    return f"# Generated from the models in api/ by `make generate`.\n{body}"


def _schema(model: type[BaseModel]) -> str:
    schema = model.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m api.generate",
        description="Writes what follows from the models: CRDs, JSON schemas, the manual's tables, parts of the chart.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is not current")
    options = parser.parse_args(arguments)
    if sys.flags.optimize >= 2:
        parser.error("the descriptions of CRDs and schemas are docstrings: run Python without -OO and PYTHONOPTIMIZE")
    stale = []
    for path, text in generated().items():
        target = ROOT / path
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not options.check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path}: {'not current, run make generate' if options.check else 'written'}\n")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
