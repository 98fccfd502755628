"""Opaque configuration of a claim or DeviceClass: the kinds of ``resource.nvidia.com/v1beta1`` for this driver, and one
of our own, FractionConfig of ``gpu-dra.dev/v1alpha1``.

Of NVIDIA's kinds, fields, names and defaults are those of its driver (api/nvidia.com/resource/v1beta1), so that its
manifests run unchanged; what it finds only when a daemon starts is found here when the configuration is decoded. The
life of one::

    config = decode(parameters, path="spec.devices.config[0].opaque.parameters")  # shape, values, contradictions
    config = config.normalize()                                                   # every default filled in
    config.require_gates(enabled, path=...)                                       # is the asked feature switched on?

Decoding is pure and never raises anything but :class:`api.strict.DecodeError`. Whether a device can do what is asked
(a UUID that exists, a compute capability for ``multiUser``) is for the driver to say.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, WithJsonSchema
from pydantic_core import PydanticCustomError

from api import feature_gates, fractions, strict
from api.base import ApiModel
from api.fractions import Enforcement
from api.memory import MemoryLimit
from api.strict import DecodeError, Problem, show

API_VERSION: Final = "resource.nvidia.com/v1beta1"

# Kinds of the same API version that another driver decodes.
COMPUTE_DOMAIN_DRIVER = "compute-domain.nvidia.com"
COMPUTE_DOMAIN_KINDS = ("ComputeDomainChannelConfig", "ComputeDomainDaemonConfig", "ComputeDomain")

_DEVICE_KEY = re.compile(r"0|[1-9][0-9]{0,3}|(GPU|MIG)-[0-9A-Za-z/-]{1,120}")


class SharingStrategy(StrEnum):
    """How pods that hold the same device share it."""

    TIME_SLICING = "TimeSlicing"
    MPS = "MPS"


class TimeSliceInterval(StrEnum):
    """How long one process runs before the next."""

    DEFAULT = "Default"
    SHORT = "Short"
    MEDIUM = "Medium"
    LONG = "Long"


class BackendPolicy(StrEnum):
    """Which kernel interface a passed-through device is given by."""

    LEGACY_ONLY = "LegacyOnly"
    PREFER_IOMMU_FD = "PreferIommuFD"


def _device_key(key: str) -> str:
    if not _DEVICE_KEY.fullmatch(key):
        raise PydanticCustomError(
            "problem",
            "must be the index or the UUID of a device, not {given}",
            {"given": show(key), "hint": 'write it like "0" or "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"'},
        )
    return key


DeviceKey = Annotated[str, AfterValidator(_device_key)]

PERCENTAGES = "1 to 100"


def _percentage(value: int) -> int:
    """0 is well-formed, as it is for NVIDIA's driver; that no client could run anything is told where it applies."""
    if not 0 <= value <= 100:
        raise PydanticCustomError("problem", f"must be {PERCENTAGES}, not {{given}}", {"given": show(value)})
    return value


Percentage = Annotated[
    StrictInt, AfterValidator(_percentage), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 100})
]


class TimeSlicingConfig(ApiModel):
    interval: TimeSliceInterval | None = Field(
        default=None, description="How long a process runs before the next one; Default when not given."
    )


class MpsConfig(ApiModel):
    """Settings of the MPS control daemon that serves the claim."""

    default_active_thread_percentage: Percentage | None = Field(
        default=None, description=f"Share of the multiprocessors that one client may use: {PERCENTAGES} percent."
    )
    default_pinned_device_memory_limit: MemoryLimit | None = Field(
        default=None, description="Device memory that one client may use on each device; at least 1Mi."
    )
    default_per_device_pinned_memory_limit: dict[DeviceKey, MemoryLimit] | None = Field(
        default=None,
        description="The same for single devices, by UUID or by index in the claim's sorted UUIDs; goes before the "
        "limit for all devices.",
    )
    multi_user: StrictBool | None = Field(
        default=None, description="Clients of different Unix users at once; needs compute capability 7.0."
    )


class GpuSharing(ApiModel):
    strategy: SharingStrategy = Field(description="How pods that hold the same GPU share it.")
    time_slicing_config: TimeSlicingConfig | None = Field(
        default=None, description="Only with strategy TimeSlicing; may be left out."
    )
    mps_config: MpsConfig | None = Field(default=None, description="Only with strategy MPS; may be left out.")

    def normalize(self) -> GpuSharing:
        """TimeSlicing gets interval Default, MPS an empty configuration, where none is given."""
        if self.strategy is SharingStrategy.MPS:
            return self.model_copy(update={"mps_config": self.mps_config or MpsConfig()})
        interval = self.time_slicing_config.interval if self.time_slicing_config else None
        return self.model_copy(
            update={"time_slicing_config": TimeSlicingConfig(interval=interval or TimeSliceInterval.DEFAULT)}
        )


class MigDeviceSharing(ApiModel):
    strategy: SharingStrategy = Field(
        description="How pods that hold the same MIG device share it; TimeSlicing changes nothing there."
    )
    mps_config: MpsConfig | None = Field(default=None, description="Only with strategy MPS; may be left out.")

    def normalize(self) -> MigDeviceSharing:
        """MPS gets an empty configuration where none is given; a MIG device has no time-slice interval."""
        if self.strategy is SharingStrategy.MPS:
            return self.model_copy(update={"mps_config": self.mps_config or MpsConfig()})
        return self


class VfioIommu(ApiModel):
    backend_policy: BackendPolicy | None = Field(
        default=None, description="LegacyOnly (the default) or PreferIommuFD: /dev/vfio/devices where the host has it."
    )
    enable_api_device: StrictBool | None = Field(
        default=None,
        validation_alias="enableAPIDevice",
        serialization_alias="enableAPIDevice",
        description="Also give the container /dev/vfio/vfio or /dev/iommu; false when not given.",
    )

    def normalize(self) -> VfioIommu:
        """Every field set."""
        return VfioIommu(
            backend_policy=self.backend_policy or BackendPolicy.LEGACY_ONLY,
            enable_api_device=bool(self.enable_api_device),
        )


class _Gated(ApiModel):
    """A configuration that asks for features which the administrator may have switched off."""

    def required_gates(self) -> Mapping[str, str]:
        """Feature gates this configuration needs, by the path of the field that needs them."""
        return {}

    def require_gates(self, enabled: Collection[str], *, path: str = "") -> None:
        """Raises :class:`DecodeError` naming each field whose feature gate is not in ``enabled``."""
        problems = [
            Problem(strict.join(path, *where.split(".")), None, *_why_off(gate))
            for where, gate in self.required_gates().items()
            if gate not in enabled
        ]
        if problems:
            raise DecodeError(problems)


def _why_off(gate: str) -> tuple[str, str]:
    """What is missing and what helps: nobody can switch on a gate whose feature this version does not have."""
    if feature_gates.FEATURE_GATES[gate].state is feature_gates.GateState.MISSING:
        return f"needs feature gate {gate}, which this version does not have", "use a configuration without it"
    hint = "ask your administrator to set it in the driver's featureGates, or use another configuration"
    return f"needs feature gate {gate}, which is off", hint


_SHARING_GATES: Mapping[SharingStrategy, str] = MappingProxyType(
    {SharingStrategy.TIME_SLICING: "TimeSlicingSettings", SharingStrategy.MPS: "MPSSupport"}
)


class GpuConfig(_Gated):
    """Configuration of whole GPUs. Without ``sharing`` nothing on the GPU is changed."""

    api_version: Literal["resource.nvidia.com/v1beta1"] = API_VERSION
    kind: Literal["GpuConfig"] = "GpuConfig"
    sharing: GpuSharing | None = Field(default=None, description="How pods that hold the same GPU share it.")

    def normalize(self) -> Self:
        """The same configuration with every default filled in."""
        return self.model_copy(update={"sharing": self.sharing.normalize()}) if self.sharing else self

    def required_gates(self) -> Mapping[str, str]:
        return {"sharing.strategy": _SHARING_GATES[self.sharing.strategy]} if self.sharing else {}


class MigDeviceConfig(_Gated):
    """Configuration of MIG devices. Without ``sharing`` nothing on the device is changed."""

    api_version: Literal["resource.nvidia.com/v1beta1"] = API_VERSION
    kind: Literal["MigDeviceConfig"] = "MigDeviceConfig"
    sharing: MigDeviceSharing | None = Field(
        default=None, description="How pods that hold the same MIG device share it."
    )

    def normalize(self) -> Self:
        """The same configuration with every default filled in."""
        return self.model_copy(update={"sharing": self.sharing.normalize()}) if self.sharing else self

    def required_gates(self) -> Mapping[str, str]:
        """TimeSlicing changes nothing on a MIG device, so it needs none."""
        if self.sharing is None or self.sharing.strategy is SharingStrategy.TIME_SLICING:
            return {}
        return {"sharing.strategy": _SHARING_GATES[self.sharing.strategy]}


class VfioDeviceConfig(_Gated):
    """Configuration of GPUs that are passed through to a virtual machine."""

    api_version: Literal["resource.nvidia.com/v1beta1"] = API_VERSION
    kind: Literal["VfioDeviceConfig"] = "VfioDeviceConfig"
    iommu: VfioIommu | None = Field(default=None, description="How the device is handed over.")

    def normalize(self) -> Self:
        """The same configuration with every default filled in."""
        return self.model_copy(update={"iommu": (self.iommu or VfioIommu()).normalize()})

    def required_gates(self) -> Mapping[str, str]:
        return {"kind": "PassthroughSupport"}


class ClientPriority(StrEnum):
    """Whose kernels go first on a GPU that several processes use through MPS."""

    NORMAL = "Normal"
    LOW = "Low"


class FractionConfig(_Gated):
    """Configuration of fractions of a GPU or MIG device; on a device that is the claim's alone it changes nothing."""

    api_version: Literal["gpu-dra.dev/v1alpha1"] = fractions.API_VERSION
    kind: Literal["FractionConfig"] = "FractionConfig"
    minimum_enforcement: Enforcement | None = Field(
        default=None,
        description="The weakest fence that will do: Enforced, Cooperative (the default), or None for none at all. A "
        "node with less refuses the claim.",
    )
    memory_limit: MemoryLimit | None = Field(
        default=None,
        description="Memory that a container may take while others leave it, above what was counted for the claim, "
        "which it is guaranteed; needs a device whose sharingBackend is Cgroup.",
    )
    priority: ClientPriority | None = Field(
        default=None, description="Normal (the default), or Low: others' kernels go first. Needs a fence by MPS."
    )

    def normalize(self) -> Self:
        """The same configuration with every default filled in."""
        return self.model_copy(
            update={
                "minimum_enforcement": self.minimum_enforcement or Enforcement.COOPERATIVE,
                "priority": self.priority or ClientPriority.NORMAL,
            }
        )


ClaimConfig = GpuConfig | MigDeviceConfig | VfioDeviceConfig | FractionConfig

KINDS: Mapping[str, type[ClaimConfig]] = MappingProxyType(
    {
        "GpuConfig": GpuConfig,
        "MigDeviceConfig": MigDeviceConfig,
        "VfioDeviceConfig": VfioDeviceConfig,
        "FractionConfig": FractionConfig,
    }
)

# A strategy's own block.
_BLOCK_OWNER: Mapping[str, SharingStrategy] = MappingProxyType(
    {"timeSlicingConfig": SharingStrategy.TIME_SLICING, "mpsConfig": SharingStrategy.MPS}
)


def decode(parameters: object, *, path: str = "") -> ClaimConfig:
    """``opaque.parameters`` as a configuration, not yet normalised. ``path`` is where the parameters lie.

    Raises :class:`DecodeError` with every problem: unknown or missing fields, wrong types and values, a strategy with
    the other strategy's block, an unknown kind or apiVersion, and anything that is not JSON at all.
    """
    data = strict.plain(parameters, path)
    if not isinstance(data, dict):
        raise DecodeError(
            [Problem(path, data, f"must be an object, not {show(data)}", f"of kind {' or '.join(KINDS)}")]
        )
    model = KINDS.get(data["kind"]) if isinstance(data.get("kind"), str) else None
    if model is None:
        raise DecodeError([*_version_problems(data, path), _kind_problem(data, path)])
    version = version_of(model)
    problems = [*_version_problems(data, path, version), *_misplaced_blocks(data, path)]
    try:
        # The version was judged above, in words of its own.
        config = strict.decode(model, {**data, "apiVersion": version}, path=path)
    except DecodeError as error:
        covered = {problem.path for problem in problems}
        raise DecodeError([*problems, *(p for p in error.problems if p.path not in covered)]) from None
    if problems:
        raise DecodeError(problems)
    return config


def version_of(model: type[ClaimConfig]) -> str:
    """The apiVersion of a kind."""
    return str(model.model_fields["api_version"].default)


def _version_problems(data: Mapping[str, Any], path: str, wanted: str = "") -> list[Problem]:
    """``wanted``: that of its kind; empty where the kind is not known."""
    where, version = strict.join(path, "apiVersion"), data.get("apiVersion")
    known = [wanted] if wanted else [API_VERSION, fractions.API_VERSION]
    if "apiVersion" not in data:
        return [Problem(where, None, "required", f"set it to {' or '.join(known)}")]
    if version not in known:
        return [Problem(where, version, f"must be {' or '.join(known)}, not {show(version)}")]
    return []


def _kind_problem(data: Mapping[str, Any], path: str) -> Problem:
    where, kind = strict.join(path, "kind"), data.get("kind")
    if "kind" not in data:
        return Problem(where, None, "required", f"one of {', '.join(KINDS)}")
    if isinstance(kind, str) and kind in COMPUTE_DOMAIN_KINDS:
        return Problem(
            where,
            kind,
            f"{kind} is not a kind of this driver",
            f"it belongs to driver {COMPUTE_DOMAIN_DRIVER}: set opaque.driver to that, or remove this configuration",
        )
    return Problem(where, kind, *strict.one_of(list(KINDS), kind))


def _misplaced_blocks(data: Mapping[str, Any], path: str) -> list[Problem]:
    """Blocks that exist, but not with this strategy or for this kind of device.

    NVIDIA's driver refuses the other strategy's block only when it applies the configuration.
    """
    sharing = data.get("sharing")
    if not isinstance(sharing, dict):
        return []
    problems = []
    for block, owner in _BLOCK_OWNER.items():
        where, strategy = strict.join(path, "sharing", block), sharing.get("strategy")
        if data["kind"] == "MigDeviceConfig" and block == "timeSlicingConfig" and block in sharing:
            hint = "a MIG device has no time-slice interval: remove it"
            problems.append(Problem(where, sharing[block], "unknown field", hint))
        elif sharing.get(block) is not None and strategy != owner and strategy in list(SharingStrategy):
            message, hint = f"cannot be used with strategy {strategy}", f"remove it, or set strategy to {owner}"
            problems.append(Problem(where, sharing[block], message, hint))
    return problems
