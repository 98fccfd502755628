"""What the device plugin's configuration means for the devices of a node. Pure.

Its ConfigMap holds several configurations by name. The node's label chooses one; without it, as the plugin's
config-manager falls back: the one called "default", else the only one, else none (cmd/config-manager/main.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.claim_config import SharingStrategy
from api.device_plugin_config import ALL_DEVICES, RESOURCE_PREFIX, DevicePluginConfig, ReplicatedResources, parse
from api.node_inventory import NodeSharing, SharedResource
from api.shape import closest
from api.strict import DecodeError, Problem, show
from dra_driver.devices.sharing import Replicas, SharingRule

NODE_LABEL: Final = "nvidia.com/device-plugin.config"
WHOLE_GPU: Final = f"{RESOURCE_PREFIX}gpu"

_DEFAULT_KEY = "default"  # NamedConfigFallback
_MIG = f"{RESOURCE_PREFIX}mig-"
_PROFILE = re.compile(r"((?:[0-9]+c\.)?[0-9]+g\.[0-9]+gb)(?:\.(.+)|(-.+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PluginSharing:
    """``key`` of the ConfigMap; empty where none was chosen. ``dropped``: what is not done though it was asked for, as
    the device plugin does not do it either; sentences for people."""

    key: str
    resources: tuple[SharedResource, ...] = ()
    dropped: tuple[str, ...] = ()


def read_config_map(data: Mapping[str, str], label: str) -> PluginSharing:
    """The sharing that ``data`` asks for on a node whose label says ``label`` (empty for none). Raises DecodeError."""
    key = _chosen(data, label)
    if not key:
        return PluginSharing("")
    try:
        return _meaning(key, parse(data[key]))
    except DecodeError as error:
        raise DecodeError([_below(key, problem) for problem in error.problems]) from None


def rules_of(sharing: NodeSharing | None) -> tuple[SharingRule, ...]:
    """What is in force on a node as rules; a resource that stands for no device of ours has none."""
    if sharing is None:
        return ()
    return tuple(
        SharingRule(
            Replicas(shared.strategy, shared.replicas, shared.renamed, shared.one_per_request),
            mig_profile=None if shared.resource == WHOLE_GPU else profile_of(shared.resource),
        )
        for shared in sharing.resources
        if shared.resource == WHOLE_GPU or profile_of(shared.resource) is not None
    )


def resource_name(profile: str | None) -> str:
    """What MIG devices of ``profile``, or whole GPUs, are called as a resource (internal/rm/rm.go)."""
    return WHOLE_GPU if profile is None else _MIG + profile.replace("+", ".")


def profile_of(resource: str) -> str | None:
    """The MIG profile that a resource stands for, as NVML names it; None for no MIG resource."""
    match = _PROFILE.fullmatch(resource.removeprefix(_MIG)) if resource.startswith(_MIG) else None
    if match is None:
        return None
    plus, minus = match[2], match[3]
    return f"{match[1]}+{plus}" if plus else f"{match[1]}{minus or ''}"


def _chosen(data: Mapping[str, str], label: str) -> str:
    if label:
        if label not in data:
            known = sorted(data)
            close = closest(label, known)
            there = f"there are: {', '.join(known)}" if known else "the ConfigMap is empty"
            hint = f"did you mean {close}?" if close else there
            raise DecodeError(
                [Problem(f"node label {NODE_LABEL}", label, f"the ConfigMap has no key {show(label)}", hint)]
            )
        return label
    if _DEFAULT_KEY in data:
        return _DEFAULT_KEY
    return next(iter(data)) if len(data) == 1 else ""


def _below(key: str, problem: Problem) -> Problem:
    path = f"key {key}: {problem.path}" if problem.path else f"key {key}"
    return Problem(path, problem.value, problem.message, problem.hint)


def _meaning(key: str, config: DevicePluginConfig) -> PluginSharing:
    dropped = []
    if config.resources is not None and (config.resources.gpus or config.resources.mig):
        dropped.append("resources is ignored, as by the device plugin: GPUs keep their names")
    active = config.sharing.active if config.sharing else None
    if active is None:
        return PluginSharing(key, (), tuple(dropped))
    strategy, replicated = active
    block = "mps" if strategy is SharingStrategy.MPS else "timeSlicing"
    if config.sharing and config.sharing.mps and config.sharing.time_slicing:
        dropped.append("sharing.timeSlicing is ignored, since sharing.mps goes before it")
    dropped += _dropped(f"sharing.{block}", replicated)
    one_per_request = replicated.fail_requests_greater_than_one
    resources = tuple(
        SharedResource(
            resource=resource.name,
            strategy=strategy,
            replicas=resource.replicas,
            renamed=replicated.rename_by_default,
            # A client that asks MPS for two shares gets no more than with one, so there it is the default.
            one_per_request=strategy is SharingStrategy.MPS if one_per_request is None else one_per_request,
        )
        for resource in replicated.resources
    )
    return PluginSharing(key, resources, tuple(dropped))


def _dropped(path: str, replicated: ReplicatedResources) -> list[str]:
    dropped = []
    for at, resource in enumerate(replicated.resources):
        where, default = f"{path}.resources[{at}]", f"{resource.name}.shared"
        if resource.rename not in (None, default if replicated.rename_by_default else None):
            dropped.append(f"{where}.rename is ignored, as by the device plugin: renameByDefault decides")
        if resource.devices != ALL_DEVICES:
            dropped.append(f"{where}.devices is ignored, as by the device plugin: every device is shared")
        if resource.name != WHOLE_GPU and profile_of(resource.name) is None:
            dropped.append(
                f"{where}.name: {resource.name} stands for no device here, only {WHOLE_GPU} and {_MIG}<profile> do"
            )
    return dropped
