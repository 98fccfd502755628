"""What an administrator applies before any workload: CustomResourceDefinitions and DeviceClasses, as raw objects.

They are here as code because a wheel carries no deploy folder; a test holds them equal to deploy/deviceclasses.yaml and
deploy/crds. DeviceClasses are NVIDIA's, name by name and expression by expression, two for renamed shares
and one for fractions.
"""

from __future__ import annotations

from api.crd import crd
from api.generate import DEFINITIONS
from dra_driver.kube.interface import Obj

DEFAULT_DRIVER = "gpu.nvidia.com"
_EXTENDED_RESOURCE = "nvidia.com/gpu"
_RENAMED = f"{_EXTENDED_RESOURCE}.shared"


def custom_resource_definitions() -> tuple[Obj, ...]:
    return tuple(crd(definition) for definition in DEFINITIONS)


def device_classes(driver: str = DEFAULT_DRIVER) -> tuple[Obj, ...]:
    """For another driver name the classes keep their names, so that manifests stay as they are."""
    return (
        _device_class("gpu.nvidia.com", driver, "gpu", extendedResourceName=_EXTENDED_RESOURCE),
        _device_class("mig.nvidia.com", driver, "mig"),
        _device_class("shared.gpu.nvidia.com", driver, "gpu.shared", extendedResourceName=_RENAMED),
        _device_class("shared.mig.nvidia.com", driver, "mig.shared"),
        _device_class("vfio.gpu.nvidia.com", driver, "vfio"),
        _fractions("fraction.gpu.nvidia.com", driver),
    )


def _fractions(name: str, driver: str) -> Obj:
    of_gpus = _device_class(name, driver, "gpu")
    (selector,) = of_gpus["spec"]["selectors"]
    selector["cel"]["expression"] += f" && 'sharingBackend' in device.attributes['{driver}']"
    return of_gpus


def _device_class(name: str, driver: str, kind: str, **spec: str) -> Obj:
    expression = f"device.driver == '{driver}' && device.attributes['{driver}'].type == '{kind}'"
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": expression}}], **spec},
    }
