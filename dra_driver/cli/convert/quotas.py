"""Quotas and limit ranges for the old resources, which mean something else once pods have claims. They stay, below a
comment that says what.

Names for claims: "<class>.deviceclass.resource.k8s.io/devices" (resource_claims.go in Kubernetes'
pkg/quota/v1/evaluator/core). HAMi has quotas of memory and cores as well (limits.nvidia.com/gpumem), for which there is
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dra_driver.cli.convert import yaml_text
from dra_driver.cli.convert.model import FRACTION, WHOLE
from dra_driver.cli.convert.reading import is_old_resource

_DEVICES = "deviceclass.resource.k8s.io/devices"
_GIVEN, _HELD = ("default", "defaultRequest"), ("min", "max", "maxLimitRequestRatio")  # of a limit range's limits


def comment_for(obj: Mapping[str, Any]) -> str:
    """Empty for what is neither a quota nor a limit range of old resources."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return ""
    texts = {"ResourceQuota": _of_quota, "LimitRange": _of_limit_range}.get(str(obj.get("kind")), _of_nothing)(spec)
    return "".join(f"{line}\n" for text in texts for line in yaml_text.comment(text))


def _of_nothing(_spec: Mapping[str, Any]) -> Iterator[str]:
    return iter(())


def _of_quota(spec: Mapping[str, Any]) -> Iterator[str]:
    if names := _old_in(spec.get("hard")):
        yield (
            f"{', '.join(names)}: claims are not counted by this. The number of devices in claims is counted by "
            f"{WHOLE}.{_DEVICES} and {FRACTION}.{_DEVICES}; their memory and compute by nothing."
        )


def _of_limit_range(spec: Mapping[str, Any]) -> Iterator[str]:
    """The API server writes ``default`` and ``defaultRequest`` into containers that lack them (plugin/pkg/admission/
    limitranger), also beside a claim, where a number of GPUs is one more claim (KEP-5004)."""
    listed = spec.get("limits")
    limits = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    given = {name: None for each in limits for field in _GIVEN for name in _old_in(each.get(field))}
    held = {name: None for each in limits for field in _HELD for name in _old_in(each.get(field))}
    if given:
        yield (
            f"default of {', '.join(given)}: given to every container that says nothing of it, so also to those that "
            "have a claim now, and they would have GPUs twice. Remove it."
        )
    if held:
        yield (
            f"bounds of {', '.join(held)}: they hold nobody back whose pods have claims. A ResourceQuota can count "
            "those."
        )


def _old_in(amounts: object) -> list[str]:
    return [name for name in amounts if _is_old(name)] if isinstance(amounts, dict) else []


def _is_old(name: object) -> bool:
    """``limits.nvidia.com/gpumem`` as well as ``nvidia.com/gpumem``."""
    if not isinstance(name, str) or not name.isprintable():
        return False
    return is_old_resource(name) or is_old_resource(name.partition(".")[2])
