"""Claims and pods as the tests write them. Pure.

The container's image is the examples' own; its shell ends at SIGTERM at once, so that deleting a pod takes no grace
period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.claim_config import API_VERSION, SharingStrategy
from dra_driver.kube.interface import Obj

IMAGE = "ubuntu:24.04"
GPU_CLASS = "gpu.nvidia.com"
MIG_CLASS = "mig.nvidia.com"
GRACE_SECONDS = 2
_IDLE = "trap 'exit 0' TERM; sleep infinity & wait"


@dataclass(frozen=True, slots=True)
class Use:
    """An entry of a pod's ``resourceClaims``: a claim made by hand, or a template."""

    claim: str = ""
    template: str = ""
    entry: str = "gpu"


@dataclass(frozen=True, slots=True)
class Container:
    """``claims`` are ``entry`` or ``entry/request``; None is every entry of the pod. ``host_files``: paths inside, and
    the node's files there."""

    name: str = "main"
    claims: tuple[str, ...] | None = None
    limits: Mapping[str, str] | None = None
    command: tuple[str, ...] = ("sh", "-c", _IDLE)
    host_files: Mapping[str, str] = field(default_factory=dict)


def exactly(
    name: str = "gpu",
    *,
    device_class: str = GPU_CLASS,
    count: int | None = None,
    everything: bool = False,
    admin: bool = False,
    selectors: Sequence[str] = (),
    tolerations: Sequence[Obj] = (),
) -> Obj:
    """One request of a claim. ``everything`` is allocation mode All."""
    return {"name": name, "exactly": _subrequest(device_class, count, everything, admin, selectors, tolerations)}


def alternative(
    name: str, *, device_class: str = GPU_CLASS, count: int | None = None, selectors: Sequence[str] = ()
) -> Obj:
    """One entry of ``firstAvailable``."""
    return {"name": name, **_subrequest(device_class, count, False, False, selectors, ())}


def first_available(name: str, *alternatives: Obj) -> Obj:
    return {"name": name, "firstAvailable": list(alternatives)}


def claim_spec(*requests: Obj, constraints: Sequence[Obj] = (), config: Sequence[Obj] = ()) -> Obj:
    """One GPU when nothing is said."""
    devices: Obj = {"requests": list(requests or (exactly(),))}
    if constraints:
        devices["constraints"] = list(constraints)
    if config:
        devices["config"] = list(config)
    return {"devices": devices}


def shared(
    strategy: SharingStrategy, settings: Obj | None = None, *, requests: Sequence[str] = (), kind: str = "GpuConfig"
) -> Obj:
    """An entry of a claim's ``config``. ``settings``: the strategy's own block."""
    sharing: Obj = {"strategy": strategy}
    if settings is not None:
        block = "mpsConfig" if strategy is SharingStrategy.MPS else "timeSlicingConfig"
        sharing[block] = settings
    parameters = {"apiVersion": API_VERSION, "kind": kind, "sharing": sharing}
    entry: Obj = {"opaque": {"driver": GPU_CLASS, "parameters": parameters}}
    return {"requests": list(requests), **entry} if requests else entry


def only_uuid(uuid: str) -> str:
    """The selector of one device."""
    return f'device.attributes["{GPU_CLASS}"].uuid == "{uuid}"'


def is_profile(profile: str) -> str:
    """The selector of MIG devices of a profile."""
    return f'device.attributes["{GPU_CLASS}"].profile == "{profile}"'


def at_least(quantity: str) -> str:
    return f'device.capacity["{GPU_CLASS}"].memory.compareTo(quantity("{quantity}")) >= 0'


def pod(
    name: str, *uses: Use, containers: Sequence[Container] = (Container(),), node: str = "", grace: int = GRACE_SECONDS
) -> Obj:
    """``node`` binds it to that node by its host name label."""
    spec: Obj = {
        "terminationGracePeriodSeconds": grace,
        # No token is wanted, and without one the pod need not wait for its volume.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(container, uses) for container in containers],
    }
    files = sorted({path for container in containers for path in container.host_files.values()})
    if files:
        spec["volumes"] = [{"name": _volume(files, path), "hostPath": {"path": path, "type": "File"}} for path in files]
        for container, body in zip(containers, spec["containers"], strict=True):
            body["volumeMounts"] = [
                {"name": _volume(files, path), "mountPath": place, "readOnly": True}
                for place, path in container.host_files.items()
            ]
    if uses:
        spec["resourceClaims"] = [_entry(use) for use in uses]
    if node:
        spec["affinity"] = {"nodeAffinity": _node_affinity(node)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _subrequest(
    device_class: str,
    count: int | None,
    everything: bool,
    admin: bool,
    selectors: Sequence[str],
    tolerations: Sequence[Obj],
) -> Obj:
    found: Obj = {"deviceClassName": device_class}
    if everything:
        found["allocationMode"] = "All"
    if count is not None:
        found["count"] = count
    if admin:
        found["adminAccess"] = True
    if selectors:
        found["selectors"] = [{"cel": {"expression": expression}} for expression in selectors]
    if tolerations:
        found["tolerations"] = list(tolerations)
    return found


def _container(container: Container, uses: Sequence[Use]) -> Obj:
    names = [use.entry for use in uses] if container.claims is None else container.claims
    resources: Obj = {}
    if names:
        resources["claims"] = [_reference(name) for name in names]
    if container.limits:
        resources["limits"] = dict(container.limits)
    return {
        "name": container.name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(container.command),
        "resources": resources,
    }


def _volume(files: Sequence[str], path: str) -> str:
    return f"file-{files.index(path)}"


def _reference(text: str) -> Obj:
    entry, _, request = text.partition("/")
    return {"name": entry, "request": request} if request else {"name": entry}


def _entry(use: Use) -> Obj:
    if use.claim:
        return {"name": use.entry, "resourceClaimName": use.claim}
    return {"name": use.entry, "resourceClaimTemplateName": use.template}


def _node_affinity(node: str) -> Obj:
    # matchFields: the host name label need not be the node's name.
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
