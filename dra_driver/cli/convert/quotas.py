"""Quotas for the old resources, which count nothing once pods have claims. They stay; a comment says what counts then.

Names for claims: "<class>.deviceclass.resource.k8s.io/devices" (resource_claims.go in Kubernetes'
pkg/quota/v1/evaluator/core). HAMi has quotas of memory and cores as well (limits.nvidia.com/gpumem), for which there is
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dra_driver.cli.convert import yaml_text
from dra_driver.cli.convert.model import FRACTION, WHOLE
from dra_driver.cli.convert.reading import is_old_resource

_DEVICES = "deviceclass.resource.k8s.io/devices"


def comment_for(obj: Mapping[str, Any]) -> str:
    """Empty for what is no quota of old resources."""
    spec = obj.get("spec") if obj.get("kind") == "ResourceQuota" else None
    hard = spec.get("hard") if isinstance(spec, dict) else None
    names = [name for name in hard if _is_old(name)] if isinstance(hard, dict) else []
    if not names:
        return ""
    text = (
        f"{', '.join(names)}: claims are not counted by this. The number of devices in claims is counted by "
        f"{WHOLE}.{_DEVICES} and {FRACTION}.{_DEVICES}; their memory and compute by nothing."
    )
    return "".join(f"{line}\n" for line in yaml_text.comment(text))


def _is_old(name: object) -> bool:
    return isinstance(name, str) and name.isprintable() and is_old_resource(name.partition(".")[2])
