"""The part of DriverConfiguration about sharing: which devices are offered in replicas or in fractions, and how."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from api.base import ApiModel
from api.claim_config import SharingStrategy
from api.device_plugin_config import MAX_REPLICAS, Replicas
from api.fractions import FractionSettings
from api.mig_layouts import split_profile
from api.mig_policy import GpuSelectorSettings
from api.strict import show

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL, re.ASCII)
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)


def _wrong(expected: str, given: object, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError(
        "problem", "must be {expected}, not {given}", {"expected": expected, "given": show(given), "hint": hint}
    )


def _namespace(text: str) -> str:
    if len(text) > 63 or not _NAMESPACE.fullmatch(text):
        raise _wrong("the name of a namespace", text)
    return text


def _config_map(text: str) -> str:
    if text and (len(text) > 253 or not _NAME.fullmatch(text)):
        raise _wrong("the name of a ConfigMap, or empty", text)
    return text


def _profile(text: str) -> str:
    try:
        split_profile(text)
    except ValueError:
        raise _wrong("a MIG profile", text, "such as 1g.10gb, 1g.10gb+me or 1c.3g.40gb") from None
    return text


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


class DevicePluginConfigSettings(ApiModel):
    namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        default="gpu-operator", description="Namespace of the ConfigMap with the device plugin's configurations."
    )
    name: Annotated[str, AfterValidator(_config_map)] = Field(
        default="time-slicing-config",
        description="Name of that ConfigMap, of which the node label nvidia.com/device-plugin.config chooses a key. "
        "Empty: none is read.",
    )


class SharingRuleSettings(ApiModel):
    """Devices that are offered as several shares, or in fractions: ``replicas`` or ``fractions``."""

    selector: GpuSelectorSettings = Field(
        default=GpuSelectorSettings(), description="Which GPUs. Without any list: all of them."
    )
    mig_profile: Annotated[
        Annotated[str, AfterValidator(_profile)] | None,
        BeforeValidator(_empty_is_none),
        WithJsonSchema({"type": "string"}),
    ] = Field(
        default=None,
        description="The MIG devices of this profile on those GPUs, as far as they exist already (mode static). "
        "Empty: the GPUs as a whole.",
    )
    strategy: SharingStrategy = Field(
        default=SharingStrategy.TIME_SLICING, description="How the holders of a device's replicas share it."
    )
    replicas: Replicas | None = Field(default=None, description="Shares of each device, all alike.")
    fractions: FractionSettings | None = Field(
        default=None,
        description="Shares of each device as large as claims ask for, in memory and compute, each fenced by the best "
        "that the node has; {} for the defaults.",
    )
    rename_by_default: StrictBool = Field(
        default=False,
        description="Offer the shares as nvidia.com/gpu.shared (DeviceClass shared.gpu.nvidia.com) instead.",
    )
    fail_requests_greater_than_one: StrictBool | None = Field(
        default=None,
        description="Refuse a request for more than one share. Not set: true with MPS, where two shares are no more "
        "than one, else false.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.replicas is None) == (self.fractions is None):
            hint = "such as replicas: 4 or fractions: {}"
            raise PydanticCustomError(
                "problem", "{message}", {"message": "must have either replicas or fractions", "hint": hint}
            )
        # By value: a configuration that was read and merged has every field.
        fields = ("strategy", "rename_by_default", "fail_requests_greater_than_one")
        given = [name for name in fields if getattr(self, name) != type(self).model_fields[name].default]
        if self.fractions is not None and given:
            names = ", ".join(type(self).model_fields[name].alias or name for name in given)
            message = f"{names} cannot be set together with fractions"
            raise PydanticCustomError("problem", "{message}", {"message": message, "hint": "they are about replicas"})
        return self


def _consumable_shares(value: object) -> str:
    """As NVIDIA's driver takes it, where YAML may have made a number of it."""
    text = str(value).strip() if isinstance(value, str) or type(value) is int else "?"
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if text not in ("", "disabled", "unlimited", "memory") and not 1 <= number <= MAX_REPLICAS:
        raise _wrong(f"empty, disabled, unlimited, memory, or a number from 1 to {MAX_REPLICAS}", value)
    return "" if text == "disabled" else text


class SharingSettings(ApiModel):
    device_plugin_config: DevicePluginConfigSettings = DevicePluginConfigSettings()
    consumable_shares: Annotated[str, BeforeValidator(_consumable_shares), WithJsonSchema({"type": "string"})] = Field(
        default="",
        description="NVIDIA's switch for all devices that nothing else shares (with feature gate ConsumableShares): "
        "unlimited, memory, or a number of shares. Only counted, never fenced. Empty or disabled: none.",
    )
    rules: list[SharingRuleSettings] = Field(
        default_factory=list,
        description="Which devices are offered as several shares or in fractions; the first rule that is for a device "
        "decides, and any before the device plugin's configuration.",
    )
