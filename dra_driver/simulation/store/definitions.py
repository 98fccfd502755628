"""CustomResourceDefinitions: what the server checks before it serves a new resource, and the status it gives."""

from __future__ import annotations

from dra_driver.kube.interface import Obj
from dra_driver.simulation.store.registry import storage_version
from dra_driver.simulation.validation.cause import Cause, invalid, required

_SCOPES = ("Cluster", "Namespaced")


def check_definition(definition: Obj) -> list[Cause]:
    """The rules without which nothing could be served (apiextensions-apiserver, pkg/apis/apiextensions/validation)."""
    spec = definition.get("spec") or {}
    names = spec.get("names") or {}
    causes = [required(f"spec.{field}") for field in ("group", "scope") if not spec.get(field)]
    causes += [required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        causes.append(invalid("spec.versions", versions, "must have exactly one version marked as storage version"))
    for index, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    if causes:
        return causes
    if spec["scope"] not in _SCOPES:
        causes.append(invalid("spec.scope", spec["scope"], "must be Cluster or Namespaced"))
    if definition["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
        causes.append(
            invalid("metadata.name", definition["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
        )
    return causes


def established(definition: Obj, now: str) -> Obj:
    """The status of a definition whose resource is served."""
    names = definition["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    return {
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ],
        "acceptedNames": names,
        "storedVersions": [storage_version(definition["spec"])["name"]],
    }
