"""Manifests as the other projects' documents have them: what comes out, word for word, and that a server takes it."""

from __future__ import annotations

import pytest
import yaml

from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.parse import parse_claim
from dra_driver.kube.interface import NAMESPACES, RESOURCE_CLAIM_TEMPLATES
from dra_driver.simulation.manifests import device_classes
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.simulation.validation import unknown_fields
from tests.cli.convert.cases import CASES, FOLDER, converted, expected, given
from tests.cli.convert.objects import documents, of_kind

ENGINE = CelEngine()
every_case = pytest.mark.parametrize("name", CASES)


def check(expression: str) -> str | None:
    ENGINE.compile(expression)
    return None


def test_every_file_is_a_case() -> None:
    assert {path.name.partition(".")[0] for path in FOLDER.iterdir()} == set(CASES)


@every_case
def test_what_comes_out(name: str) -> None:
    result = converted(given(name), CASES[name])
    assert result.problems == ()
    assert result.text == expected(name)


@every_case
def test_a_second_conversion_changes_nothing(name: str) -> None:
    again = converted(expected(name), CASES[name])
    assert again.problems == ()
    assert again.text == expected(name)


@every_case
def test_a_server_takes_the_templates(name: str) -> None:
    api = EmbeddedApi(check_expression=check)
    templates = of_kind(expected(name), "ResourceClaimTemplate")
    for namespace in {each["metadata"].get("namespace", "default") for each in templates} - {"default"}:
        api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for each in templates:
        namespace = each["metadata"].get("namespace", "default")
        metadata = {**each["metadata"], "namespace": namespace}
        created = api.create(RESOURCE_CLAIM_TEMPLATES, {**each, "metadata": metadata})
        assert unknown_fields(RESOURCE_CLAIM_TEMPLATES, each) == []
        parse_claim({**created, "spec": created["spec"]["spec"]})


@every_case
def test_every_claim_has_its_template_and_every_template_its_claim(name: str) -> None:
    text = expected(name)
    names = [each["metadata"]["name"] for each in of_kind(text, "ResourceClaimTemplate")]
    used = [line.split()[-1] for line in text.splitlines() if "resourceClaimTemplateName" in line]
    assert sorted(used) == sorted(names)
    assert len(set(names)) == len(names)
    assert all(len(each) <= 63 for each in names)


@every_case
def test_nothing_old_is_left(name: str) -> None:
    old = (
        "nvidia.com/gpu:",
        "gpumem",
        "gpucores",
        "nvidia.com/mig-",
        "volcano.sh/",
        "gpu-fraction",
        "hami.io/",
        "hami-sched",
    )
    only_told = ("ConfigMap", "ResourceQuota", "LimitRange")
    kept = [each for each in documents(expected(name)) if each["kind"] not in only_told]
    text = yaml.safe_dump_all(kept)  # without comments
    assert [word for word in old if word in text] == []


def test_classes_are_shipped_ones() -> None:
    """None is printed, since each that is named is there or comes with fractions."""
    shipped = {each["metadata"]["name"] for each in device_classes()} | {"fraction.gpu.nvidia.com"}
    lines = [line for name in CASES for line in expected(name).splitlines()]
    assert {line.split()[-1] for line in lines if "deviceClassName:" in line} <= shipped
    assert "DeviceClass" not in {each["kind"] for name in CASES for each in documents(expected(name))}
