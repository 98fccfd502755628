"""The device plugin's sharing, in its ConfigMap or as a file of its own, as rules of our DriverConfiguration. Pure.

The driver reads that ConfigMap as it is, so it stays; the rules are for those who want to do without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from api import unique_yaml
from api.claim_config import SharingStrategy
from api.driver_spec import API_VERSION, KIND
from api.node_inventory import SharedResource
from api.sharing_policy import DevicePluginConfigSettings
from api.strict import DecodeError, show
from dra_driver.cli.convert import yaml_text
from dra_driver.cli.convert.model import CannotConvertError, Note, Problem
from dra_driver.devices.plugin_sharing import NODE_LABEL, WHOLE_GPU, PluginSharing, profile_of, read_config_map

_SHARING = ("timeSlicing", "mps")
_DEFAULT = DevicePluginConfigSettings()


def is_config(data: Any) -> bool:
    """Whether ``data`` is a configuration of the device plugin about sharing."""
    if not isinstance(data, dict) or "kind" in data or not isinstance(data.get("sharing"), dict):
        return False
    return any(kind in data["sharing"] for kind in _SHARING)


def configs_in(obj: Mapping[str, Any]) -> dict[str, str]:
    """The configurations about sharing in a ConfigMap, by key."""
    data = obj.get("data") if obj.get("kind") == "ConfigMap" else None
    texts = data if isinstance(data, dict) else {}
    return {key: text for key, text in texts.items() if isinstance(text, str) and _mentions_sharing(text)}


def _mentions_sharing(text: str) -> bool:
    if "sharing" not in text:
        return False
    try:
        return is_config(unique_yaml.load(text))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False  # then it is no configuration of anybody's


def comment_for(obj: Mapping[str, Any], configs: Mapping[str, str]) -> str:
    """What a ConfigMap with ``configs`` means, as a comment. Raises :class:`CannotConvertError`."""
    found = obj.get("metadata")
    metadata = found if isinstance(found, dict) else {}
    place = {"namespace": metadata.get("namespace"), "name": metadata.get("name")}
    lines = yaml_text.comment(
        f"gpu-dra reads this ConfigMap as it is, {_DEFAULT.namespace}/{_DEFAULT.name} unless its chart's value "
        "sharing.devicePluginConfig names another one. As rules, which go before it, the same would be:"
    )
    settings: dict[str, Any] = {}
    if place != {"namespace": _DEFAULT.namespace, "name": _DEFAULT.name} and all(
        isinstance(v, str) for v in place.values()
    ):
        settings["devicePluginConfig"] = place
    for key, text in configs.items():
        shared = _read(key, text, ("data", key))
        if len(configs) > 1:
            lines += yaml_text.comment(
                f"Nodes that the label {NODE_LABEL}={key} chooses; a rule chooses by selector.nodes, which are names:"
            )
        lines += [
            f"# {line}" for line in yaml_text.dump({"sharing": {**settings, "rules": _rules(shared)}}).splitlines()
        ]
        for told in (*shared.dropped, *_losses(shared)):
            lines += yaml_text.comment(told)
    return "".join(f"{line}\n" for line in lines)


def driver_configuration(text: str) -> tuple[dict[str, Any], list[Note]]:
    """A configuration that is a file of its own. Raises :class:`CannotConvertError`."""
    shared = _read("", text, ())
    obj = {"apiVersion": API_VERSION, "kind": KIND, "spec": {"sharing": {"rules": _rules(shared)}}}
    told = (
        "Part of the driver's own configuration, or below the chart's value sharing; not for kubectl apply. As a "
        f"ConfigMap {_DEFAULT.namespace}/{_DEFAULT.name} the device plugin's file is read as it is."
    )
    return obj, [Note((), text) for text in (told, *shared.dropped, *_losses(shared))]


def _read(key: str, text: str, path: tuple[str, ...]) -> PluginSharing:
    try:
        return read_config_map({key or "config": text}, key or "config")
    except DecodeError as error:
        message = f"is no configuration of the device plugin: {error}"
        raise CannotConvertError([Problem(path, message, f"correct {show(key) if key else 'it'}")]) from None


def _losses(shared: PluginSharing) -> Iterator[str]:
    if any(resource.strategy is SharingStrategy.TIME_SLICING for resource in shared.resources):
        yield (
            "Nothing holds a process in a time-sliced share to any amount of memory, here as there. Fractions (class "
            "fraction.gpu.nvidia.com) have an amount of their own."
        )


def _rules(shared: PluginSharing) -> list[dict[str, Any]]:
    return list(_each_rule(shared.resources))


def _each_rule(resources: Sequence[SharedResource]) -> Iterator[dict[str, Any]]:
    for resource in resources:
        profile = profile_of(resource.resource)
        if resource.resource != WHOLE_GPU and profile is None:
            continue  # among what was dropped
        rule: dict[str, Any] = {"migProfile": profile} if profile else {}
        rule |= {"strategy": resource.strategy.value, "replicas": int(resource.replicas)}
        if resource.renamed:
            rule["renameByDefault"] = True
        rule["failRequestsGreaterThanOne"] = resource.one_per_request
        yield rule
