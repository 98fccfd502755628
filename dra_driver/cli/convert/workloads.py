"""Where a workload has its pod. Pure.

The kinds are those of Kubernetes that have a pod template (k8s.io/api: core/v1, apps/v1, batch/v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dra_driver.cli.convert.model import Path

_TEMPLATE: Final[Path] = ("spec", "template")
_GROUPS: Final[Mapping[str, Mapping[str, Path]]] = {
    "": {"Pod": (), "PodTemplate": ("template",), "ReplicationController": _TEMPLATE},
    "apps": dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), _TEMPLATE),
    "batch": {"Job": _TEMPLATE, "CronJob": ("spec", "jobTemplate", "spec", "template")},
}


def group_of(obj: Mapping[str, Any]) -> str:
    version = obj.get("apiVersion")
    return version.rpartition("/")[0] if isinstance(version, str) else ""


def pod_path(obj: Mapping[str, Any]) -> Path | None:
    """Where metadata and spec of the object's pod are; None for a kind that is not known to have one."""
    kind = obj.get("kind")
    return _GROUPS.get(group_of(obj), {}).get(kind) if isinstance(kind, str) else None


def is_list(obj: Mapping[str, Any]) -> bool:
    """A List, as kubectl prints several objects."""
    kind = obj.get("kind")
    return isinstance(kind, str) and kind.endswith("List") and isinstance(obj.get("items"), list)
