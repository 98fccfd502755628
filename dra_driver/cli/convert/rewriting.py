"""A workload with claims in the place of the old resources and annotations. Works on an object that is its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from api.strict import show
from dra_driver.cli.convert.claims import name_of
from dra_driver.cli.convert.model import Container, Note, Path, Pod
from dra_driver.cli.convert.reading import HAMI_SCHEDULER, PRIORITY, is_old_annotation

_KAI, _VOLCANO = "kai-scheduler", "volcano"
_MPS_FOLDER: Final = "/tmp/nvidia-mps"  # noqa: S108  the path that KAI's documents mount
_HELD: Final = (
    "This claim is held until the pod ends, while limits of an init container are free for the containers after it. "
    "Where they can share, name a container's claim here instead."
)
_CLAIMS: Final = "the cluster's own scheduler allocates claims"
_LOST: Mapping[str, str] = {
    HAMI_SCHEDULER: _CLAIMS,
    _KAI: f"{_CLAIMS}. KAI's queues, quotas, fair share and gangs are lost with it, and label kai.scheduler/queue has "
    "no effect; --keep-scheduler leaves it",
    _VOLCANO: f"{_CLAIMS}. Volcano's queues and gangs are lost with it; --keep-scheduler leaves it",
}


def at(obj: Any, path: Path) -> Any:
    """What is at ``path`` of ``obj``, which has it."""
    for key in path:
        obj = obj[key]
    return obj


def rewrite(
    obj: dict[str, Any], pod: Pod, templates: Mapping[Path, str], told: Collection[str], *, keep_scheduler: bool
) -> list[Note]:
    """Changes ``obj``, of which ``pod`` was read, and gives its comments. ``templates``: names by container's path."""
    place = at(obj, pod.path)
    spec = place["spec"]
    notes = [Note((*pod.path, "spec"), text) for text in told]
    _drop_annotations(place)
    if pod.scheduler in _LOST and (pod.scheduler == HAMI_SCHEDULER or not keep_scheduler):
        del spec["schedulerName"]
        text = f"schedulerName {pod.scheduler} is gone: {_LOST[pod.scheduler]}."
        notes.append(Note((*pod.path, "spec"), text))
    elif pod.scheduler in _LOST:
        text = (
            "It allocates claims only with its feature gate DynamicResourceAllocation, and fractions only in a release "
        )
        notes.append(Note((*pod.path, "spec", "schedulerName"), f"{text}that knows consumable capacity (KEP-5075)."))
    for container in pod.containers:
        notes += _drop_resources(at(obj, container.path), container, has_claim=container.path in templates)
    notes += list(_about_mps_folder(spec, pod.path)) if templates else []
    if not templates:
        return notes
    claims = spec["resourceClaims"] = spec.get("resourceClaims") or []
    taken = [each.get("name") for each in claims if isinstance(each, dict)]
    several = len(templates) > 1
    for container in pod.containers:
        if container.path not in templates:
            continue
        name = name_of("gpu", container.name) if several else "gpu"
        while name in taken:
            name = name_of(name, "gpu")
        taken.append(name)
        claims.append({"name": name, "resourceClaimTemplateName": templates[container.path]})
        if "initContainers" in container.path and at(obj, container.path).get("restartPolicy") != "Always":
            notes.append(Note(container.path, _HELD))
        resources = at(obj, container.path)["resources"] = at(obj, container.path).get("resources") or {}
        resources["claims"] = [*(resources.get("claims") or []), {"name": name}]
    return notes


def _drop_annotations(place: dict[str, Any]) -> None:
    metadata: dict[str, Any] = place.get("metadata") or {}
    annotations = metadata.get("annotations")
    if not annotations:
        return
    kept = {name: value for name, value in annotations.items() if not is_old_annotation(name)}
    if kept:
        metadata["annotations"] = kept
    else:
        del metadata["annotations"]
        if not metadata:
            del place["metadata"]


def _drop_resources(container: dict[str, Any], found: Container, *, has_claim: bool) -> Iterator[Note]:
    if not found.amounts:
        return
    resources = container["resources"]
    for kind in ("limits", "requests"):
        amounts = resources.get(kind)
        if not amounts:
            continue
        kept = {name: value for name, value in amounts.items() if name not in found.amounts}
        if kept:
            resources[kind] = kept
        else:
            del resources[kind]
    if not resources:
        del container["resources"]
    # A priority of 0 is one.
    nothing = [name for name, amount in found.amounts.items() if not has_claim or (not amount and name != PRIORITY)]
    if nothing:
        named = ", ".join(f"{name}: {found.amounts[name]}" for name in nothing)
        yield Note(found.path, f"{named} asks for nothing, and is gone.")
    if found.misplaced:
        names = ", ".join(map(show, found.misplaced))
        yield Note(found.path, f"{names} stood in requests alone, which the API server refuses; taken as limits.")


def _about_mps_folder(spec: Mapping[str, Any], path: Path) -> Iterator[Note]:
    volumes = spec.get("volumes")
    for number, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        host = volume.get("hostPath") if isinstance(volume, dict) else None
        if isinstance(host, dict) and host.get("path") == _MPS_FOLDER:
            text = (
                "Remove this volume and its mounts: the driver mounts the pipe of its own MPS daemon at "
                f"{_MPS_FOLDER}, and that of another daemon in its place would leave the container without limits."
            )
            yield Note((*path, "spec", "volumes", number), text)
