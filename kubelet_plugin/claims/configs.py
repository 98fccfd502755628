"""Which configuration applies to which device of a claim. Pure.

The rules are NVIDIA's (its cmd/gpu-kubelet-plugin, GetOpaqueDeviceConfigs): built-in defaults, then the classes'
configurations, then the claim's, each in its order, and the last that fits wins; exactly one applies to a device,
fields are not merged. One of the claim that names the device's request has to fit the device's type; one that names
none applies where it fits. Beyond NVIDIA's, the name of a prioritised list covers those of its subrequests that it
fits, as the API says (resource.k8s.io/v1 DeviceClaimConfiguration.requests); and a class names no requests: those in
the allocation are the scheduler's, and a class of several types of device has a configuration for each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from api.claim_config import ClaimConfig, VfioDeviceConfig, decode
from api.strict import DecodeError
from dra_driver.errors import ConfigError, ConflictingConfig, UnsupportedConfig
from kubelet_plugin.claims.allocated import AllocatedClaim, AllocatedDevice, ConfigSource, OpaqueConfig

WITHOUT_SHARING = "remove sharing: pods that use one claim then share the GPU with the driver's default time slices"
_REMEDY: Mapping[ConfigSource, str] = MappingProxyType(
    {
        ConfigSource.CLAIM: "correct it in the claim or its template and create the pod again",
        ConfigSource.CLASS: "ask your administrator to correct the DeviceClass",
    }
)


@dataclass(frozen=True, slots=True)
class TakenConfig:
    """Which configuration devices of one type take. ``device_type`` is what attribute ``type`` says of them."""

    device_type: str
    default: ClaimConfig  # normalised; what applies without any, and by its class what fits
    also: tuple[type[ClaimConfig], ...] = ()  # what else fits

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.default.kind, *(str(each.model_fields["kind"].default) for each in self.also))

    def fits(self, config: ClaimConfig) -> bool:
        return isinstance(config, (type(self.default), *self.also))


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The normalised configuration of one device. ``source``: where it stands; None for the built-in default."""

    config: ClaimConfig
    source: OpaqueConfig | None = None

    @property
    def origin(self) -> str:
        return "" if self.source is None else f"{self.source.source} {_path(self.source)}"


def resolve_configs(
    claim: AllocatedClaim, taken: Sequence[TakenConfig], gates: Collection[str] | None
) -> tuple[DeviceConfig, ...]:
    """One configuration for each of ``claim.devices``, which take what ``taken`` says, in the same order.

    ``gates``: the feature gates that are on; None for a claim that is prepared already, which none may take away from,
    and which is not refused any more for a configuration of another type.

    Raises :class:`ConfigError` for what is wrong anywhere in the claim's configurations, also in those that apply to
    nothing, and :class:`UnsupportedConfig` for one that applies and whose gate is off. The message names path, value,
    remedy.
    """
    ordered = sorted(claim.configs, key=lambda config: config.source is ConfigSource.CLAIM)
    decoded = [(_decode(claim, config), config) for config in ordered]
    return tuple(
        _pick(claim, decoded, device, takes, gates) for device, takes in zip(claim.devices, taken, strict=True)
    )


def unsupported(claim: AllocatedClaim, found: DeviceConfig, field: str, why: str, advice: str) -> UnsupportedConfig:
    """The refusal of a configuration that is well-formed: ``field`` is the path within it, ``advice`` the way round."""
    remedy = "" if found.source is None else f"; {_REMEDY[found.source.source]}"
    return UnsupportedConfig(f"{_where(claim, found, field)}: {why}", hint=f"{advice}{remedy}")


def conflicting(
    claim: AllocatedClaim, found: DeviceConfig, field: str, value: str, holder: str, advice: str
) -> ConflictingConfig:
    """The refusal of what could be had if claim ``holder`` did not use the device otherwise."""
    return ConflictingConfig(f"{_where(claim, found, field)}: {value} cannot be had beside claim {holder}", hint=advice)


def _where(claim: AllocatedClaim, found: DeviceConfig, field: str) -> str:
    source = found.source
    return field if source is None else f"{_origin(claim, source)}: {_path(source)}.{field}"


def _decode(claim: AllocatedClaim, config: OpaqueConfig) -> ClaimConfig:
    try:
        return decode(config.parameters, path=_path(config)).normalize()
    except DecodeError as error:
        raise ConfigError(f"{_origin(claim, config)}: {error}", hint=_REMEDY[config.source]) from error


def _pick(
    claim: AllocatedClaim,
    decoded: Sequence[tuple[ClaimConfig, OpaqueConfig]],
    device: AllocatedDevice,
    takes: TakenConfig,
    gates: Collection[str] | None,
) -> DeviceConfig:
    for config, entry in reversed(decoded):
        fits = takes.fits(config)
        exactly = device.request in entry.requests
        if exactly and not fits and entry.source is ConfigSource.CLAIM and gates is not None:
            raise ConfigError(
                f"{_origin(claim, entry)}: {_path(entry)}.kind: {config.kind} cannot be applied to device "
                f"{device.device} of type {takes.device_type} (request {device.request})",
                hint=f"use kind {' or '.join(takes.kinds)}, or leave request {device.request} out of its requests; "
                f"{_REMEDY[entry.source]}",
            )
        if fits and (exactly or device.parent_request in entry.requests or not entry.requests):
            if gates is not None:
                _refuse_switched_off(claim, config, entry, gates)
            return DeviceConfig(config, entry)
    return DeviceConfig(takes.default)


def _refuse_switched_off(
    claim: AllocatedClaim, config: ClaimConfig, entry: OpaqueConfig, gates: Collection[str]
) -> None:
    try:
        config.require_gates(gates, path=_path(entry))
    except DecodeError as error:
        remedy = _REMEDY[entry.source]
        raise UnsupportedConfig(
            f"{_origin(claim, entry)}: {error}",
            hint=remedy if isinstance(config, VfioDeviceConfig) else f"{WITHOUT_SHARING}; {remedy}",
        ) from error


def _origin(claim: AllocatedClaim, config: OpaqueConfig) -> str:
    if config.source is ConfigSource.CLASS:
        return f"configuration that a DeviceClass gave to claim {claim.ref.namespace}/{claim.ref.name}"
    return f"configuration of claim {claim.ref.namespace}/{claim.ref.name}"


def _path(config: OpaqueConfig) -> str:
    return f"config[{config.index}].opaque.parameters"
