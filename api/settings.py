"""Every setting's flag, environment variable and process, and what a process is told about itself.

Names are NVIDIA's where its plugin has the setting (its cmd/gpu-kubelet-plugin), Kubernetes' usual ones for leader
election, ours otherwise. What only the file can hold is listed as well. A test holds both tables and the fields of
DriverSpec together; texts come from the fields.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from api import shape
from api.driver_spec import DriverConfiguration
from api.strict import DecodeError, Problem


class Process(StrEnum):
    """Which process uses a value; the last three stand for several. The MPS supervisor is ``supervisor``."""

    CONTROLLER = "controller"
    PLUGIN = "plugin"
    SUPERVISOR = "supervisor"
    BOTH = "controller, plugin"
    NODE = "plugin, supervisor"
    ALL = "all"

    def serves(self, process: Process) -> bool:
        """Whether a value marked like this is for ``process``."""
        return self in (Process.ALL, process) or process in self.split(", ")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of DriverConfiguration. ``path`` is its wire path, "spec.cdi.root"."""

    path: str

    @property
    def location(self) -> tuple[str, ...]:
        return tuple(self.path.split("."))

    @property
    def kind(self) -> Any:
        """The Python type of the value."""
        return shape.type_at(DriverConfiguration, self.location)

    @property
    def is_map(self) -> bool:
        """Whether the value is a map, written "NAME=VALUE,..." outside of files."""
        return shape.is_map(self.kind)

    @property
    def description(self) -> str:
        return shape.fields_of(self.parent)[self.location[-1]].description or ""

    @property
    def parent(self) -> type[BaseModel]:
        """The model that has the field."""
        model = shape.model_at(DriverConfiguration, self.location[:-1])
        if model is None:
            raise LookupError(f"{self.path} is not a setting of DriverConfiguration")
        return model


@dataclass(frozen=True, slots=True)
class Setting(Leaf):
    """A leaf that has a flag and an environment variable."""

    flag: str
    env: str
    process: Process

    @property
    def dest(self) -> str:
        """The flag's key in argparse's namespace."""
        return _dest(self.flag)


@dataclass(frozen=True, slots=True)
class IdentityValue:
    """What a process is told about itself; not configuration, so never in a file. ``name`` is a field of Identity."""

    name: str
    flag: str
    env: str
    process: Process
    description: str
    default: str = ""
    required_by: Process | None = None

    @property
    def dest(self) -> str:
        return _dest(self.flag)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process this is. Empty text is unknown."""

    node_name: str
    namespace: str
    pod_name: str
    pod_uid: str


_C, _P, _S = Process.CONTROLLER, Process.PLUGIN, Process.SUPERVISOR
_B, _N, _A = Process.BOTH, Process.NODE, Process.ALL

SETTINGS: tuple[Setting, ...] = (
    Setting("spec.driverName", "--driver-name", "DRIVER_NAME", _A),
    Setting(
        "spec.kubelet.registrarDirectory",
        "--kubelet-registrar-directory-path",
        "KUBELET_REGISTRAR_DIRECTORY_PATH",
        _P,
    ),
    Setting("spec.kubelet.pluginsDirectory", "--kubelet-plugins-directory-path", "KUBELET_PLUGINS_DIRECTORY_PATH", _N),
    Setting("spec.kubelet.handOver", "--hand-over", "HAND_OVER", _P),
    Setting("spec.cdi.root", "--cdi-root", "CDI_ROOT", _P),
    Setting("spec.cdi.hookPath", "--nvidia-cdi-hook-path", "NVIDIA_CDI_HOOK_PATH", _P),
    Setting("spec.hardware.driverRoot", "--nvidia-driver-root", "NVIDIA_DRIVER_ROOT", _N),
    Setting("spec.hardware.containerDriverRoot", "--container-driver-root", "CONTAINER_DRIVER_ROOT", _N),
    Setting("spec.hardware.hostRoot", "--host-root", "HOST_ROOT", _N),
    Setting("spec.hardware.simulatedState", "--simulated-state", "SIMULATED_STATE", _N),
    Setting("spec.hardware.rescanInterval", "--rescan-interval", "RESCAN_INTERVAL", _P),
    Setting("spec.hardware.nvidiaSmiTimeout", "--nvidia-smi-timeout", "NVIDIA_SMI_TIMEOUT", _P),
    Setting("spec.controller.leaderElection.enabled", "--leader-elect", "LEADER_ELECT", _C),
    Setting(
        "spec.controller.leaderElection.leaseName",
        "--leader-elect-resource-name",
        "LEADER_ELECT_RESOURCE_NAME",
        _C,
    ),
    Setting(
        "spec.controller.leaderElection.namespace",
        "--leader-elect-resource-namespace",
        "LEADER_ELECT_RESOURCE_NAMESPACE",
        _C,
    ),
    Setting(
        "spec.controller.leaderElection.leaseDuration",
        "--leader-elect-lease-duration",
        "LEADER_ELECT_LEASE_DURATION",
        _C,
    ),
    Setting(
        "spec.controller.leaderElection.renewDeadline",
        "--leader-elect-renew-deadline",
        "LEADER_ELECT_RENEW_DEADLINE",
        _C,
    ),
    Setting(
        "spec.controller.leaderElection.retryPeriod",
        "--leader-elect-retry-period",
        "LEADER_ELECT_RETRY_PERIOD",
        _C,
    ),
    Setting("spec.controller.wipe.settle", "--wipe-settle", "WIPE_SETTLE", _C),
    Setting("spec.controller.wipe.jitter", "--wipe-jitter", "WIPE_JITTER", _C),
    Setting("spec.observability.httpEndpoint", "--http-endpoint", "HTTP_ENDPOINT", _A),
    Setting("spec.observability.metricsPath", "--metrics-path", "METRICS_PATH", _A),
    Setting("spec.observability.logLevel", "--log-level", "LOG_LEVEL", _A),
    Setting("spec.observability.logFormat", "--log-format", "LOG_FORMAT", _A),
    Setting("spec.kubernetes.kubeconfig", "--kubeconfig", "KUBECONFIG", _B),
    Setting("spec.kubernetes.requestTimeout", "--kube-api-timeout", "KUBE_API_TIMEOUT", _B),
    Setting("spec.policy.additionalAttributes", "--additional-attributes", "ADDITIONAL_ATTRIBUTES", _C),
    Setting("spec.mig.packing", "--mig-packing", "MIG_PACKING", _C),
    Setting(
        "spec.sharing.devicePluginConfig.namespace",
        "--device-plugin-config-namespace",
        "DEVICE_PLUGIN_CONFIG_NAMESPACE",
        _C,
    ),
    Setting("spec.sharing.devicePluginConfig.name", "--device-plugin-config-name", "DEVICE_PLUGIN_CONFIG_NAME", _C),
    Setting("spec.sharing.consumableShares", "--consumable-shares", "CONSUMABLE_SHARES", _B),
    Setting("spec.mps.startTimeout", "--mps-start-timeout", "MPS_START_TIMEOUT", _N),
    Setting("spec.mps.drainTimeout", "--mps-drain-timeout", "MPS_DRAIN_TIMEOUT", _N),
    Setting("spec.mps.canaryInterval", "--mps-canary-interval", "MPS_CANARY_INTERVAL", _S),
    Setting("spec.mps.canaryProgram", "--mps-canary-program", "MPS_CANARY_PROGRAM", _S),
    Setting("spec.featureGates", "--feature-gates", "FEATURE_GATES", _B),
)

# Lists and maps of objects, which neither a flag nor a variable can hold, and what belongs to them. Both processes use
# them.
FILE_ONLY: tuple[Leaf, ...] = (
    Leaf("spec.mig.rules"),
    Leaf("spec.mig.layouts.version"),
    Leaf("spec.mig.layouts.mig-configs"),
    Leaf("spec.sharing.rules"),
)

IDENTITY: tuple[IdentityValue, ...] = (
    IdentityValue(
        "node_name", "--node-name", "NODE_NAME", _P, "Name of the node that the plugin serves.", required_by=_P
    ),
    IdentityValue("namespace", "--namespace", "NAMESPACE", _B, "Namespace of the process's pod.", default="default"),
    IdentityValue("pod_name", "--pod-name", "POD_NAME", _B, "Name of the process's pod."),
    IdentityValue(
        "pod_uid", "--pod-uid", "POD_UID", _P, "UID of the plugin's pod; it keeps sockets of two plugins apart."
    ),
)

CONFIG_FLAG, CONFIG_ENV = "--config", "CONFIG_FILE"


def add_arguments(parser: argparse.ArgumentParser, process: str) -> None:
    """Adds the flags of ``process`` ("controller", "plugin" or "supervisor"). A flag that is not given stays None."""
    for_process = Process(process)
    parser.add_argument(
        CONFIG_FLAG, metavar="FILE", help=f"DriverConfiguration file in YAML or JSON [{CONFIG_ENV}]", default=None
    )
    about = parser.add_argument_group("identity")
    for value in IDENTITY:
        if value.process.serves(for_process):
            about.add_argument(value.flag, metavar="TEXT", help=_help(value.description, value.env), default=None)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in SETTINGS:
        if setting.process.serves(for_process):
            title = setting.location[1] if len(setting.location) > 2 else "driver"
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            _add(groups[title], setting)


def _add(group: argparse._ArgumentGroup, setting: Setting) -> None:
    text = _help(setting.description, setting.env)
    if setting.kind is bool:
        group.add_argument(setting.flag, metavar="BOOL", nargs="?", const="true", default=None, help=text)
        return
    choices = shape.choices(setting.kind)
    metavar = "|".join(choices) if choices else _METAVARS.get(setting.kind, "TEXT")
    if setting.is_map:
        metavar = "NAME=BOOL,..."
    group.add_argument(setting.flag, metavar=metavar, default=None, help=text)


_METAVARS: Mapping[Any, str] = {float: "DURATION", Path: "PATH"}


def identity(process: str, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Identity:
    """Who this process is: flags before environment. Raises :class:`DecodeError` when something required is missing."""
    found, problems = {}, []
    for value in IDENTITY:
        found[value.name] = flags.get(value.dest) or environ.get(value.env) or value.default
        if value.required_by == process and not found[value.name]:
            hint = f"give the flag or set {value.env}"
            problems.append(Problem(value.flag, None, "required", hint))
    if problems:
        raise DecodeError(problems)
    return Identity(**found)


def config_file(environ: Mapping[str, str], flags: Mapping[str, Any]) -> Path | None:
    """The configuration file that flag or environment names, None when neither does."""
    named = flags.get(_dest(CONFIG_FLAG)) or environ.get(CONFIG_ENV)
    return Path(named) if named else None


def _help(description: str, env: str) -> str:
    # argparse formats help with %.
    return f"{description} [{env}]".replace("%", "%%")


def _dest(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
