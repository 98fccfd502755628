"""What a pod's containers ask for, in the words of the other drivers: resources as whole numbers, annotations as text.

The API server's rules for extended resources (ValidateResourceRequirements in pkg/apis/core/validation): whole numbers,
a limit must be there, and a request beside it is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from api.strict import show
from dra_driver.cli.convert.model import CannotConvertError, Container, Path, Pod, Problem
from dra_driver.quantity import Format, Quantity

GPU: Final = "nvidia.com/gpu"
GPU_SHARED: Final = "nvidia.com/gpu.shared"
MIG_PREFIX: Final = "nvidia.com/mig-"
# charts/hami/values.yaml of Project-HAMi/HAMi: resourceMem, resourceMemPercentage, resourceCores, resourcePriority.
GPUMEM: Final = "nvidia.com/gpumem"
GPUMEM_PERCENTAGE: Final = "nvidia.com/gpumem-percentage"
GPUCORES: Final = "nvidia.com/gpucores"
PRIORITY: Final = "nvidia.com/priority"
# pkg/scheduler/api/devices/config/vgpu.go of volcano-sh/volcano; the last two are its older sharing (gpushare/type.go).
VGPU_NUMBER: Final = "volcano.sh/vgpu-number"
VGPU_MEMORY: Final = "volcano.sh/vgpu-memory"
VGPU_MEMORY_PERCENTAGE: Final = "volcano.sh/vgpu-memory-percentage"
VGPU_CORES: Final = "volcano.sh/vgpu-cores"
GPU_NUMBER: Final = "volcano.sh/gpu-number"
GPU_MEMORY: Final = "volcano.sh/gpu-memory"

HAMI_SCHEDULER: Final = "hami-scheduler"
# Project-HAMi/HAMi, docs/config.md, Container configs: by these HAMi-core switches its limits off, or some of them.
HAMI_VARIABLES: Final = ("CUDA_DISABLE_CONTROL", "GPU_CORE_UTILIZATION_POLICY")

_RESOURCES = frozenset(
    {GPU, GPU_SHARED, GPUMEM, GPUMEM_PERCENTAGE, GPUCORES, PRIORITY}
    | {VGPU_NUMBER, VGPU_MEMORY, VGPU_MEMORY_PERCENTAGE, VGPU_CORES, GPU_NUMBER, GPU_MEMORY}
)
_OURS = ("nvidia.com/", "volcano.sh/")
# HAMi (pkg/device/nvidia/device.go, pkg/util/types.go), KAI (pkg/common/constants; NvFractions of 0.18) and Volcano
# (pkg/scheduler/api/devices/nvidia/vgpu/type.go, gpushare/type.go).
_ANNOTATION = re.compile(
    r"hami\.io/.+|nvidia\.com/(?:(?:no)?use-gputype|(?:no)?use-gpuuuid|vgpu-mode|numa-bind|container\..+)"
    r"|gpu-(?:fraction|memory)(?:\.limit)?|gpu-fraction-(?:num-devices|container-name)"
    r"|kai\.scheduler/(?:gpu-compute-sharing-mode|container\..+\.gpu-memory\.portion\.limit)"
    r"|volcano\.sh/(?:vgpu-.+|gpu-index|gpu-assigned|predicate-time|bind-time|bind-phase|devices-to-allocate)"
)
_LARGEST = 2**31 - 1  # int32 in HAMi and in Volcano


def _obeyed(env: object) -> Iterator[str]:
    """Whatever else is wrong with ``env`` is the API server's matter."""
    for each in env if isinstance(env, list) else ():
        if isinstance(each, dict) and each.get("name") in HAMI_VARIABLES:
            yield str(each["name"])


def is_old_annotation(name: str) -> bool:
    return bool(_ANNOTATION.fullmatch(name))


def is_old_resource(name: object) -> bool:
    return isinstance(name, str) and name.startswith(_OURS)


def old_requests(data: Any, path: Path = ()) -> Iterator[Path]:
    """Places in any object, however wrong it is, that ask another driver or scheduler for GPUs."""
    if isinstance(data, dict):
        for key, value in data.items():
            at = (*path, key)
            if key in ("limits", "requests") and isinstance(value, dict):
                yield from ((*at, name) for name in value if is_old_resource(name))
            elif key == "annotations" and isinstance(value, dict):
                yield from ((*at, name) for name in value if _asks(name))
            elif key == "schedulerName" and value == HAMI_SCHEDULER:
                yield at
            else:
                yield from old_requests(value, at)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from old_requests(value, (*path, index))


def _asks(annotation: object) -> bool:
    """Annotations that ask for a GPU by themselves: KAI's."""
    return isinstance(annotation, str) and (
        annotation in ("gpu-fraction", "gpu-memory") or annotation.startswith("nvidia.com/container.")
    )


def read_pod(pod: Mapping[str, Any], path: Path) -> Pod:
    """The pod at ``path`` of its document. Raises :class:`CannotConvertError` with all that is wrong."""
    reader = _Reader()
    found = reader.pod(pod, path)
    if reader.problems:
        raise CannotConvertError(reader.problems)
    return found


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def pod(self, pod: Mapping[str, Any], path: Path) -> Pod:
        spec = self._mapping(pod, "spec", path)
        at = (*path, "spec")
        self._list(spec, "resourceClaims", at)
        containers = [
            container
            for kind in ("initContainers", "containers")
            for index, entry in enumerate(self._list(spec, kind, at))
            for container in self._container(entry, (*at, kind, index))
        ]
        named = [container.name for container in containers if container.amounts]
        for container in containers:
            if container.amounts and named.count(container.name) > 1:
                self._wrong((*container.path, "name"), f"{show(container.name)} is there twice", "rename one of them")
        scheduler = spec.get("schedulerName")
        return Pod(
            path, tuple(containers), self._annotations(pod, path), scheduler if isinstance(scheduler, str) else ""
        )

    def _annotations(self, pod: Mapping[str, Any], path: Path) -> Mapping[str, str]:
        at = (*path, "metadata", "annotations")
        found = {}
        for name, value in self._mapping(self._mapping(pod, "metadata", path), "annotations", at[:-1]).items():
            if not isinstance(name, str) or not is_old_annotation(name):
                continue
            if isinstance(value, str):
                found[name] = value
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found[name] = str(value)  # the API server wants quotes around it; what is meant is plain
            else:
                self._wrong((*at, name), f"must be text, not {show(value)}", "write its value in quotes")
        return found

    def _container(self, entry: object, path: Path) -> Iterator[Container]:
        if not isinstance(entry, dict):
            self._wrong(path, f"must be a container, not {show(entry)}", "correct or remove it")
            return
        resources = self._mapping(entry, "resources", path)
        at = (*path, "resources")
        self._list(resources, "claims", at)
        limits = self._amounts(self._mapping(resources, "limits", at), (*at, "limits"))
        requests = self._amounts(self._mapping(resources, "requests", at), (*at, "requests"))
        for resource in requests:
            if resource in limits and requests[resource] != limits[resource]:
                message = f"must be the limit, {limits[resource]}, not {requests[resource]}"
                self._wrong((*at, "requests", resource), message, "write the same in both, or the limit only")
        amounts = requests | limits
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            if amounts:
                self._wrong(path, "has no name, so nothing can be named after it", "give it one")
            name = ""
        misplaced = tuple(each for each in requests if each not in limits)
        yield Container(name, path, amounts, misplaced, tuple(_obeyed(entry.get("env"))))

    def _amounts(self, given: Mapping[object, object], path: Path) -> dict[str, int]:
        found = {}
        for name, value in given.items():
            if not isinstance(name, str) or not is_old_resource(name):
                continue
            at = (*path, name)
            if name not in _RESOURCES and not name.startswith(MIG_PREFIX):
                self._wrong(
                    at,
                    "no resource of this name is known here",
                    "remove it, or rename it to the one it stands for by default (docs/user/convert.md has the list)",
                )
                continue
            amount = self._whole_number(value, at)
            if amount is not None:
                found[name] = amount
        return found

    def _whole_number(self, value: object, path: Path) -> int | None:
        quantity = None
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                quantity = Quantity.parse(value)
            except ValueError:
                quantity = None
        is_memory = path[-1] in (GPUMEM, VGPU_MEMORY, GPU_MEMORY)
        has_unit = is_memory and quantity is not None and quantity.format is Format.BINARY_SI
        if quantity is None or has_unit or not quantity.is_whole() or not 0 <= quantity.value() <= _LARGEST:
            remedy = "write the number of MiB, without a unit" if is_memory else "write the number"
            self._wrong(path, f"must be a whole number from 0 to {_LARGEST}, not {show(value)}", remedy)
            return None
        return quantity.value()

    def _mapping(self, parent: Mapping[str, Any], key: str, path: Path) -> dict[Any, Any]:
        value = parent.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong((*path, key), f"must be an object, not {show(value)}", "correct or remove it")
            return {}
        return value

    def _list(self, parent: Mapping[str, Any], key: str, path: Path) -> list[Any]:
        value = parent.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self._wrong((*path, key), f"must be a list, not {show(value)}", "correct or remove it")
            return []
        return value

    def _wrong(self, path: Path, message: str, remedy: str) -> None:
        self.problems.append(Problem(path, message, remedy))
