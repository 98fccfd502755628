"""DriverConfiguration (gpu-dra.dev/v1alpha1): everything that can be set, with defaults; the form of the file.

Each leaf's description is the one text about it: the flag's help, the schema's and the manual's. Paths on the host and
in the container are absolute. Empty text means "not set" where that is possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from api import feature_gates
from api.base import ApiModel
from api.duration import Duration
from api.feature_gates import FeatureGateSettings
from api.mig_policy import MigSettings
from api.sharing_policy import SharingSettings
from api.strict import show

API_VERSION: Final = "gpu-dra.dev/v1alpha1"
KIND: Final = "DriverConfiguration"

_DRIVER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PORT = r"(?:[0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ENDPOINT = re.compile(rf"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]*):{_PORT}")


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def _wrong(expected: str, given: object, hint: str = "") -> PydanticCustomError:
    context = {"expected": expected, "given": show(given), "hint": hint}
    return PydanticCustomError("problem", "must be {expected}, not {given}", context)


def _absolute(value: object) -> object:
    if isinstance(value, str) and (not value.startswith("/") or "\0" in value):
        raise _wrong("an absolute path", value)
    return value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _matching(pattern: re.Pattern[str], longest: int, expected: str, hint: str) -> Callable[[str], str]:
    """A check that the whole text matches."""

    def check(value: str) -> str:
        if len(value) > longest or not pattern.fullmatch(value):
            raise _wrong(expected, value, hint)
        return value

    return check


def _metrics_path(value: str) -> str:
    if value and not value.startswith("/"):
        raise _wrong("empty or a path that starts with /", value)
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise _wrong("longer than 0s", f"{value:g}s")
    return value


_PATH_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^/"})
_OPTIONAL_PATH_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^(/.*)?$"})

AbsolutePath = Annotated[Path, BeforeValidator(_absolute), _PATH_SCHEMA]
OptionalPath = Annotated[
    Path | None, BeforeValidator(_absolute), BeforeValidator(_empty_is_none), _OPTIONAL_PATH_SCHEMA
]
OptionalText = Annotated[str | None, BeforeValidator(_empty_is_none), WithJsonSchema({"type": "string"})]
DriverName = Annotated[
    str,
    AfterValidator(_matching(_DRIVER_NAME, 63, "a DNS name of at most 63 characters", 'such as "gpu.nvidia.com"')),
]
_Address = Annotated[
    str,
    AfterValidator(_matching(_ENDPOINT, 255, "an address with a port", 'such as ":8080" or "127.0.0.1:8080"')),
]
Endpoint = Annotated[_Address | None, BeforeValidator(_empty_is_none), WithJsonSchema({"type": "string"})]


class KubeletSettings(ApiModel):
    registrar_directory: AbsolutePath = Field(
        default=Path("/var/lib/kubelet/plugins_registry"),
        description="Folder that the kubelet watches for registration sockets; the same path on host and in the pod.",
    )
    plugins_directory: AbsolutePath = Field(
        default=Path("/var/lib/kubelet/plugins"),
        description="Folder of the plugin's sockets and state; the same path on host and in the pod.",
    )
    hand_over: StrictBool = Field(
        default=False,
        description="When the plugin ends, it leaves the prepared claims to NVIDIA's driver, in that one's checkpoint.",
    )


class CdiSettings(ApiModel):
    root: AbsolutePath = Field(
        default=Path("/var/run/cdi"), description="Folder of the CDI files that the plugin writes."
    )
    hook_path: OptionalPath = Field(
        default=None,
        description="nvidia-cdi-hook on the host, for the hooks in CDI files. "
        "Empty: it is looked for below the driver root and on the host, and files are made hook-free without it.",
    )


class HardwareSettings(ApiModel):
    driver_root: AbsolutePath = Field(
        default=Path("/"), description="Where the NVIDIA driver is installed on the host: / or /run/nvidia/driver."
    )
    container_driver_root: AbsolutePath = Field(
        default=Path("/driver-root"), description="Where that folder is mounted in the plugin's container."
    )
    host_root: AbsolutePath = Field(
        default=Path("/"), description="Where the host's root is mounted in the plugin's container, for /dev and /sys."
    )
    simulated_state: OptionalPath = Field(
        default=None, description="State file of simulated GPUs to use instead of the real driver. Empty: real GPUs."
    )
    rescan_interval: Duration = Field(
        default=5.0, description="How often the plugin reads the hardware again to notice changes; 0s is never."
    )
    nvidia_smi_timeout: Annotated[Duration, AfterValidator(_positive)] = Field(
        default=10.0,
        description="How long a call of nvidia-smi, which sets time slices, may take. Then it is killed; the claim's "
        "prepare fails and is tried again.",
    )


class LeaderElectionSettings(ApiModel):
    enabled: StrictBool = Field(default=True, description="Only the controller that holds the Lease works.")
    lease_name: str = Field(default="gpu-dra-controller", min_length=1, description="Name of the Lease.")
    namespace: OptionalText = Field(
        default=None, description="Namespace of the Lease. Empty: the controller's own namespace."
    )
    lease_duration: Duration = Field(
        default=15.0, description="How long others wait after the holder's last sign of life before they take over."
    )
    renew_deadline: Duration = Field(
        default=10.0, description="The holder stops working when it could not renew the Lease for this long."
    )
    retry_period: Duration = Field(default=2.0, description="Time between two tries to get or renew the Lease.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.lease_duration > self.renew_deadline > self.retry_period > 0:
            hint = "otherwise two controllers could hold the Lease at once"
            message = "must have leaseDuration > renewDeadline > retryPeriod > 0s"
            raise PydanticCustomError("problem", "{message}", {"message": message, "hint": hint})
        return self


class WipeSettings(ApiModel):
    """When the kubelet has deleted a node's ResourceSlices."""

    settle: Duration = Field(
        default=0.2, description="Time without another deletion before the controller asks the plugin for a proof."
    )
    jitter: Duration = Field(
        default=0.5,
        description="At most so much random extra wait; doubled by each deletion that soon follows another.",
    )


class ControllerSettings(ApiModel):
    leader_election: LeaderElectionSettings = LeaderElectionSettings()
    wipe: WipeSettings = WipeSettings()


class ObservabilitySettings(ApiModel):
    http_endpoint: Endpoint = Field(
        default=None, description="Address of the HTTP server for metrics and health, such as :8080. Empty: none."
    )
    metrics_path: Annotated[str, AfterValidator(_metrics_path)] = Field(
        default="/metrics", description="Path of the metrics on that server. Empty: no metrics."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least important level that is logged.")
    log_format: LogFormat = Field(default=LogFormat.TEXT, description="One line of text, or one JSON object, a record.")


class KubernetesSettings(ApiModel):
    kubeconfig: OptionalText = Field(
        default=None, description="kubeconfig file. Empty: the service account of the pod."
    )
    request_timeout: Duration = Field(
        default=10.0, description="Time limit of one request to the API server; watches have their own."
    )


class PolicySettings(ApiModel):
    additional_attributes: StrictBool = Field(
        default=False, description="Publish attributes that NVIDIA's driver does not have. Off: exactly its set."
    )


class MpsSettings(ApiModel):
    start_timeout: Annotated[Duration, AfterValidator(_positive)] = Field(
        default=30.0, description="How long an MPS control daemon may take to answer its first command."
    )
    drain_timeout: Duration = Field(
        default=5.0, description="How long MPS clients have to end when their daemon is stopped; then they are killed."
    )
    canary_interval: Annotated[Duration, AfterValidator(_positive)] = Field(
        default=2.0, description="How often the supervisor asks each MPS control daemon and its servers for an answer."
    )
    canary_program: OptionalPath = Field(
        default=None,
        description="Program below the driver root that uses the GPU as an MPS client for a moment and ends with 0. It "
        "is run when a client has gone. Empty: only control commands are asked.",
    )


class DriverSpec(ApiModel):
    driver_name: DriverName = Field(
        default="gpu.nvidia.com", description="Name of the driver in ResourceSlices, claims and DeviceClasses."
    )
    kubelet: KubeletSettings = KubeletSettings()
    cdi: CdiSettings = CdiSettings()
    hardware: HardwareSettings = HardwareSettings()
    controller: ControllerSettings = ControllerSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    policy: PolicySettings = PolicySettings()
    mig: MigSettings = MigSettings()
    sharing: SharingSettings = SharingSettings()
    mps: MpsSettings = MpsSettings()
    feature_gates: FeatureGateSettings = Field(
        default_factory=dict, description="Features to switch on or off, by the names that NVIDIA's driver uses."
    )

    def enabled_gates(self) -> frozenset[str]:
        """The feature gates that are on, defaults included."""
        return feature_gates.enabled(self.feature_gates)


class DriverConfiguration(ApiModel):
    """The whole file, in the form of a Kubernetes object. ``metadata`` is kept as it is."""

    api_version: Literal["gpu-dra.dev/v1alpha1"] = API_VERSION
    kind: Literal["DriverConfiguration"] = KIND
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: DriverSpec = DriverSpec()
