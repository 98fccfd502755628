"""The shipped examples: each says what it shows, and is what a Kubernetes 1.37 API server accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from api.claim_config import FractionConfig, decode
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.parse import parse_claim
from dra_driver.cli.manifests import in_order, load
from dra_driver.cli.quickstart import quickstart_files
from dra_driver.kube.interface import DEVICE_CLASSES, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from dra_driver.simulation.manifests import device_classes
from dra_driver.simulation.store import EmbeddedApi

FILES = quickstart_files()
EXAMPLES = Path(__file__).resolve().parents[2] / "deploy" / "examples"
# Not manifests of this driver: values for Helm, the configuration of a demo, and what examples were converted from.
ALL = sorted(
    path
    for path in EXAMPLES.rglob("*.yaml")
    if path.parent.name not in ("values", "from") and path.name != "driver.yaml"
)
# The namespace of the device plugin's ConfigMap, which has the place and name that NVIDIA's documents give it.
OPERATOR = "gpu-operator"
ENGINE = CelEngine()


def check(expression: str) -> str | None:
    ENGINE.compile(expression)  # an example may use only what our own engine has, too
    return None


def test_there_are_nine_in_order() -> None:
    assert [path.name[:2] for path in FILES] == [f"{number:02d}" for number in range(1, 10)]


every_example = pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(EXAMPLES).with_suffix("")))


@every_example
def test_an_example_opens_with_what_it_shows(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith((".", ":")) or len(lines[0]) < 80
    assert lines[1] == "#"
    assert lines[2].startswith("# ")


@every_example
def test_an_example_is_valid_and_stands_alone(path: Path) -> None:
    api = EmbeddedApi(check_expression=check)
    for entry in device_classes():
        api.create(DEVICE_CLASSES, entry)
    manifests = in_order(load([path]))
    for manifest in manifests:
        api.create(manifest.resource, manifest.object)
    namespaces = {manifest.namespace for manifest in manifests if manifest.namespace}
    assert namespaces - {OPERATOR} == {f"{path.parent.name}-{path.name[:2]}"}


@every_example
def test_its_configurations_are_ones_that_the_driver_takes(path: Path) -> None:
    for manifest in load([path]):
        spec = manifest.object.get("spec") or {}
        for entry in (spec.get("spec") or spec).get("devices", {}).get("config") or ():
            config = decode(entry["opaque"]["parameters"])
            assert config.normalize().required_gates() or isinstance(config, FractionConfig)
            assert entry["requests"], "an example says which request it means"


@every_example
def test_the_allocator_can_read_its_claims(path: Path) -> None:
    for manifest in load([path]):
        if manifest.resource == RESOURCE_CLAIMS:
            parse_claim(manifest.object)
        if manifest.resource == RESOURCE_CLAIM_TEMPLATES:
            parse_claim({**manifest.object, "spec": manifest.object["spec"]["spec"]})


def test_the_configuration_of_the_demo_is_what_the_chart_makes_of_the_values() -> None:
    spec = yaml.safe_load((EXAMPLES / "fractions" / "driver.yaml").read_text())["spec"]
    assert spec == yaml.safe_load((EXAMPLES / "values" / "fractions.yaml").read_text())
