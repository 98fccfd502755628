"""Named MIG layouts, in the file format of NVIDIA's mig-parted (its api/spec/v1), accepted as it is::

    version: v1
    mig-configs:
      balanced:
      - device-filter: ["0x20B010DE"]     # (PCI device id << 16) | vendor id; without it: every GPU
        devices: all                      # or a list of GPU indexes
        mig-enabled: true
        mig-devices: {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}

Which entry is for which GPU, and where its devices go, is decided in ``dra_driver.devices.mig_layout``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from api import strict
from api.base import ApiModel
from api.shape import closest
from api.strict import show

VERSION: Final = "v1"
ALL_DEVICES: Final = "all"
MAX_DEVICES = 64  # per profile; no GPU has room for more than a dozen

_PROFILE = re.compile(
    r"(?:(?P<compute>[1-9][0-9]?)c\.)?"
    r"(?P<instance>(?P<slices>[1-9][0-9]?)g\.[1-9][0-9]{0,4}gb(?:[+-][a-z][a-z0-9.]*(?:,[a-z][a-z0-9.]*)*)?)",
    re.ASCII,
)
# What people write instead: dots forgotten or doubled, capitals, blanks, "1g.5g".
_MEANT = re.compile(
    r"(?:([1-9][0-9]?)c[ ._-]*)?([1-9][0-9]?)g[ ._-]*([1-9][0-9]{0,4})(?:gb?|gib)?(?:[ ._]*([+-][a-z][a-z0-9.,]*))?",
    re.ASCII | re.IGNORECASE,
)
_DEVICE_ID = re.compile(r"0[xX][0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,9}", re.ASCII)


def split_profile(text: str) -> tuple[int | None, str]:
    """``1c.2g.10gb`` is ``(1, "2g.10gb")``: compute slices, None where they are all of the GPU instance's, and the
    profile of the GPU instance as NVML names it. ValueError when the text is no profile."""
    match = _PROFILE.fullmatch(text)
    if match is None:
        raise ValueError(f"{show(text)} is no MIG profile")
    slices, compute = int(match["slices"]), int(match["compute"] or 0)
    if compute > slices:
        raise ValueError(f"{show(text)} has {compute} compute slices in a GPU instance of {slices}")
    return (None if compute in (0, slices) else compute), match["instance"]


def _problem(message: str, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError("problem", "{message}", {"message": message, "hint": hint})


def _problems(found: Sequence[tuple[int | str, object, PydanticCustomError]]) -> ValidationError:
    details = [InitErrorDetails(type=error, loc=(key,), input=value) for key, value, error in found]
    return ValidationError.from_exception_data("mig-configs", details)


def _profile(text: str) -> str:
    try:
        split_profile(text)
    except ValueError:
        match = _PROFILE.fullmatch(text)
        if match is not None:
            message = f"must have at most {match['slices']} compute slices (c), not {match['compute']}"
            raise _problem(message, "a compute instance is a part of its GPU instance") from None
        meant = _meant(text)
        hint = f"did you mean {meant}?" if meant else "such as 1g.10gb, 1g.10gb+me or 1c.3g.40gb"
        raise _problem(f"must be a MIG profile, not {show(text)}", hint) from None
    return text


def _meant(text: str) -> str:
    match = _MEANT.fullmatch(text[:64].strip())
    if match is None:
        return ""
    compute, slices, size, attributes = match.groups()
    guess = f"{f'{compute}c.' if compute else ''}{slices}g.{size}gb{(attributes or '').lower()}"
    return guess if _PROFILE.fullmatch(guess) else ""


def _filter(value: object) -> object:
    """One PCI id or several. mig-parted takes an empty text for no filter."""
    entries = value if isinstance(value, list) else [value]
    wrong: list[tuple[int | str, object, PydanticCustomError]] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, str) or (entry and not _is_device_id(entry)):
            example = f"{entry:#010x}" if isinstance(entry, int) and 0 <= entry < 1 << 32 else "0x233010DE"
            hint = f'PCI device id and vendor id in hexadecimal and in quotes, such as "{example}"'
            wrong.append((index, entry, _problem(f"must be a PCI id of 32 bits, not {show(entry)}", hint)))
    if wrong and not isinstance(value, list):
        raise wrong[0][2]
    if wrong:
        raise _problems(wrong)
    return value


def _is_device_id(text: str) -> bool:
    return bool(_DEVICE_ID.fullmatch(text)) and int(text, 0) < 1 << 32


def _devices(value: object) -> object:
    if isinstance(value, str):
        if value != ALL_DEVICES:
            hint = "did you mean all?" if closest(value, [ALL_DEVICES]) else 'such as "all" or [0, 1]'
            raise _problem(f"must be all or a list of GPU indexes, not {show(value)}", hint)
        return value
    if not isinstance(value, list):
        raise _problem(
            f"must be all or a list of GPU indexes, not {show(value)}", f"write [{value}]" * _is_index(value)
        )
    wrong: list[tuple[int | str, object, PydanticCustomError]] = []
    for index, entry in enumerate(value):
        if not _is_index(entry):
            wrong.append((index, entry, _problem(f"must be the index of a GPU, not {show(entry)}")))
        elif entry in value[:index]:
            wrong.append((index, entry, _problem(f"is given twice: {show(entry)}")))
    if wrong:
        raise _problems(wrong)
    return value


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1024


def _count(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DEVICES:
        raise _problem(f"must be a number of devices from 0 to {MAX_DEVICES}, not {show(value)}")
    return value


def _name(text: str) -> str:
    if not text.strip() or len(text) > 253:
        raise _problem(f"must be the name of a layout, at most 253 characters, not {show(text)}")
    return text


def _not_empty(expected: str) -> Any:
    def check(value: Any) -> Any:
        if not value:
            raise _problem(f"must have at least one {expected}")
        return value

    return AfterValidator(check)


DeviceFilter = Annotated[
    str | list[str],
    BeforeValidator(_filter),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Devices = Annotated[
    Literal["all"] | list[int],
    BeforeValidator(_devices),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": [ALL_DEVICES]},
                {"type": "array", "items": {"type": "integer", "minimum": 0}},
            ],
        }
    ),
]
Count = Annotated[
    int, BeforeValidator(_count), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_DEVICES})
]
ProfileKey = Annotated[str, AfterValidator(_profile)]


class _LayoutModel(ApiModel):
    """Kebab case on the wire, as mig-parted has it."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))


class LayoutEntry(_LayoutModel):
    """What some GPUs of a layout shall have. All fields as mig-parted means them."""

    device_filter: DeviceFilter | None = Field(
        default=None, description="GPU models by PCI id: (device << 16) | vendor. Without it: every model."
    )
    devices: Devices = Field(description="Indexes of GPUs as NVML counts them, or all.")
    mig_enabled: StrictBool = Field(description="Whether MIG mode is on.")
    mig_devices: dict[ProfileKey, Count] | None = Field(
        default=None, description="How many devices of which profile; required with MIG mode on, empty with it off."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = self.mig_devices
        if self.mig_enabled and given is None:
            problem = _problem("required where mig-enabled is true", "{} is no device at all")
            raise _problems([("mig-devices", None, problem)])
        if not self.mig_enabled and given:
            problem = _problem("must be empty where mig-enabled is false", "set mig-enabled to true or remove it")
            raise _problems([("mig-devices", given, problem)])
        if given and not any(given.values()):
            problem = _problem("all counts are 0", "write {} for a GPU in MIG mode without devices")
            raise _problems([("mig-devices", given, problem)])
        return self

    @property
    def pci_ids(self) -> frozenset[int]:
        """The models it is for; empty for all."""
        given = self.device_filter or ()
        return frozenset(int(text, 0) for text in ([given] if isinstance(given, str) else given) if text)

    @property
    def wanted(self) -> Mapping[str, int]:
        """Counts by profile, without zeros."""
        return {profile: count for profile, count in (self.mig_devices or {}).items() if count}


class MigLayouts(_LayoutModel):
    """The whole file: layouts by name; the entries of one in their order."""

    version: Literal["v1"] = Field(description="Version of mig-parted's format.")
    mig_configs: Annotated[
        dict[Annotated[str, AfterValidator(_name)], Annotated[list[LayoutEntry], _not_empty("entry")]],
        _not_empty("layout"),
    ] = Field(description="Layouts by name.")


def decode(data: object, *, path: str = "") -> MigLayouts:
    """Layouts from JSON-shaped data, such as a mig-parted file's. Raises ``strict.DecodeError``."""
    return strict.decode(MigLayouts, data, path=path)
