"""What the embedded cluster applies is what deploy/ ships."""

from __future__ import annotations

from pathlib import Path

import yaml

from dra_driver.simulation.manifests import custom_resource_definitions, device_classes

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


def test_device_classes_are_those_of_the_deploy_folder() -> None:
    shipped = list(yaml.safe_load_all((DEPLOY / "deviceclasses.yaml").read_text()))
    assert list(device_classes()) == shipped


def test_definitions_are_those_of_the_deploy_folder() -> None:
    shipped = [yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "crds").glob("*.yaml"))]
    ours = sorted(custom_resource_definitions(), key=lambda definition: str(definition["metadata"]["name"]))
    assert ours == sorted(shipped, key=lambda definition: str(definition["metadata"]["name"]))


def test_another_driver_keeps_the_class_names() -> None:
    classes = device_classes("gpu.example.com")
    assert [entry["metadata"]["name"] for entry in classes] == [
        "gpu.nvidia.com",
        "mig.nvidia.com",
        "shared.gpu.nvidia.com",
        "shared.mig.nvidia.com",
        "vfio.gpu.nvidia.com",
        "fraction.gpu.nvidia.com",
    ]
    assert "device.attributes['gpu.example.com']" in classes[0]["spec"]["selectors"][0]["cel"]["expression"]
