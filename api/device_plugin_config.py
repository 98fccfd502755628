"""The configuration file of NVIDIA's device plugin (its api/config/v1), as far as it is about sharing.

    version: v1
    sharing:
      timeSlicing:                     # or mps, which goes before timeSlicing
        renameByDefault: false         # true: offered as <name>.shared
        failRequestsGreaterThanOne: false
        resources:
        - {name: nvidia.com/gpu, replicas: 4}

Every field of that version is known. ``flags``, ``resources`` and ``imex`` are about that plugin's own work and nothing
follows from them here; an unknown field is an error, since it is most likely a known one with a slip.
What the resources stand for is decided in ``dra_driver.devices.plugin_sharing``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from api import strict, unique_yaml
from api.base import ApiModel
from api.claim_config import SharingStrategy
from api.strict import DecodeError, Problem, show

VERSION: Final = "v1"
RESOURCE_PREFIX: Final = "nvidia.com/"
ALL_DEVICES: Final = "all"
MIN_REPLICAS: Final = 2
# The device plugin has no limit. A server without consumable capacity gets a device for each, and a pool has 128 to a
# slice; nobody shares a GPU among more.
MAX_REPLICAS: Final = 1024

_LONGEST_NAME = 63  # MaxResourceNameLength
_NAME = re.compile(r"nvidia\.com/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_INDEX = re.compile(r"[0-9]{1,9}(:[0-9]{1,9})?", re.ASCII)
_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DEVICE_UUID = re.compile(rf"GPU-{_UUID}|MIG-{_UUID}|MIG-GPU-{_UUID}/[0-9]+/[0-9]+", re.ASCII)


def _problem(message: str, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError("problem", "{message}", {"message": message, "hint": hint})


def _version(value: object) -> object:
    """As there: none, or an empty one, is v1."""
    return VERSION if value in (None, "") else value


def _resource_name(name: str) -> str:
    """With its prefix, which may be left out (NewResourceName)."""
    full = name if name.startswith(RESOURCE_PREFIX) else f"{RESOURCE_PREFIX}{name}"
    if len(full) > _LONGEST_NAME or not _NAME.fullmatch(full):
        raise _problem(
            f"must be a resource of nvidia.com of at most {_LONGEST_NAME} characters, not {show(name)}",
            "such as nvidia.com/gpu or nvidia.com/mig-1g.10gb",
        )
    return full


def _devices(value: Any) -> Any:
    counted = isinstance(value, int) and not isinstance(value, bool) and value > 0
    listed = isinstance(value, list) and all(map(_is_device, value))
    if value != ALL_DEVICES and not counted and not listed:
        raise _problem(
            f"must be {ALL_DEVICES}, a positive number, or a list of indexes and UUIDs, not {show(value)}",
            "leave it out: here as there every device is shared",
        )
    return value


def _is_device(value: object) -> bool:
    if isinstance(value, str):
        return bool(_INDEX.fullmatch(value) or _DEVICE_UUID.fullmatch(value))
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


ResourceName = Annotated[str, AfterValidator(_resource_name)]
Replicas = Annotated[StrictInt, Field(ge=MIN_REPLICAS, le=MAX_REPLICAS)]


class ReplicatedResource(ApiModel):
    """``rename`` and ``devices`` are read and dropped there, with a warning (DisableResourceNamingInConfig)."""

    name: ResourceName
    rename: ResourceName | None = None
    devices: Annotated[Any, AfterValidator(_devices)] = ALL_DEVICES
    replicas: Replicas


def _each_once(resources: list[ReplicatedResource]) -> list[ReplicatedResource]:
    names = [resource.name for resource in resources]
    wrong = [
        InitErrorDetails(type=_problem(f"{name} is given twice", "keep one"), loc=(at, "name"), input=None)
        for at, name in enumerate(names)
        if names[:at].count(name) == 1
    ]
    if wrong:
        raise ValidationError.from_exception_data("resources", wrong)
    return resources


class ReplicatedResources(ApiModel):
    """``fail_requests_greater_than_one`` None: as the strategy has it."""

    rename_by_default: StrictBool = False
    fail_requests_greater_than_one: StrictBool | None = None
    resources: Annotated[list[ReplicatedResource], Field(min_length=1), AfterValidator(_each_once)]


class Sharing(ApiModel):
    time_slicing: ReplicatedResources | None = None
    mps: ReplicatedResources | None = None

    @property
    def active(self) -> tuple[SharingStrategy, ReplicatedResources] | None:
        """MPS goes before time-slicing; they are not combined (Sharing.ReplicatedResources)."""
        if self.mps is not None:
            return SharingStrategy.MPS, self.mps
        return None if self.time_slicing is None else (SharingStrategy.TIME_SLICING, self.time_slicing)


class PluginFlags(ApiModel):
    pass_device_specs: Any = None
    device_list_strategy: Any = None
    device_id_strategy: Any = Field(default=None, alias="deviceIDStrategy")
    cdi_annotation_prefix: Any = None
    nvidia_ctk_path: Any = Field(default=None, alias="nvidiaCTKPath")
    container_driver_root: Any = None
    shared_devices_allocation_policy: Any = None


class GfdFlags(ApiModel):
    oneshot: Any = None
    no_timestamp: Any = None
    sleep_interval: Any = None
    output_file: Any = None
    machine_type_file: Any = None


class Flags(ApiModel):
    mig_strategy: Any = None
    fail_on_init_error: Any = None
    mps_root: Any = None
    nvidia_driver_root: Any = None
    nvidia_dev_root: Any = None
    gdrcopy_enabled: Any = None
    gds_enabled: Any = None
    mofed_enabled: Any = None
    use_node_feature_api: Any = Field(default=None, alias="useNodeFeatureAPI")
    device_discovery_strategy: Any = None
    plugin: PluginFlags | None = None
    gfd: GfdFlags | None = None


class NamedResource(ApiModel):
    pattern: Any = None
    name: Any = None


class Resources(ApiModel):
    """Names of one's own for GPUs by their product; dropped there, with a warning."""

    gpus: list[NamedResource] | None = None
    mig: list[NamedResource] | None = None


class Imex(ApiModel):
    channel_ids: Any = Field(default=None, alias="channelIDs")
    required: Any = None


class DevicePluginConfig(ApiModel):
    model_config = ConfigDict(title="device plugin configuration")

    version: Annotated[Literal["v1"], BeforeValidator(_version)] = VERSION
    flags: Flags | None = None
    resources: Resources | None = None
    sharing: Sharing | None = None
    imex: Imex | None = None


def parse(text: str) -> DevicePluginConfig:
    """One configuration, YAML or JSON. An empty text is one that asks for nothing. Raises :class:`DecodeError`."""
    try:
        data = unique_yaml.load(text)
    except unique_yaml.Error as error:
        raise DecodeError([Problem("", None, f"is not YAML: {unique_yaml.told(error)}")]) from None
    except (ValueError, RecursionError) as error:
        raise DecodeError([Problem("", None, f"is not YAML: {type(error).__name__}: {error}")]) from None
    return DevicePluginConfig() if data is None else strict.decode(DevicePluginConfig, data)
