"""The machine description: one JSON file that says what a node's hardware is, for simulation and from capture.

``hardware`` is what NVML and sysfs would say; everything else is about where the numbers come from: ``sources`` names
the listings, ``interpolated`` names every value that is not from one, with the reason. UUIDs and serial numbers are
normally absent: the simulation derives them, so that two nodes made from one file differ.

A file that cannot be read, or that contradicts itself, is refused with the file, the path inside it and the problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, model_validator

from api.base import ApiModel
from dra_driver.errors import ConfigError

DRIVER_VERSION = r"^[0-9]+(\.[0-9]+){1,2}$"
_BUS_ID = r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$"
# A value is written on one line when it fits in this many characters; objects may be long, so that tables line up.
_OBJECT_LINE = 280
_LIST_LINE = 110

Count = Annotated[int, Field(ge=0)]


class MachineFileError(ConfigError):
    """A machine description is missing, unreadable or contradicts itself."""

    reason = "InvalidMachineFile"


class _Strict(ApiModel):
    model_config = ConfigDict(strict=True)


class Placements(_Strict):
    """Where a profile may sit, in memory slices: same size everywhere, one start each (nvidia-smi mig -lgipp)."""

    size: int = Field(ge=1)
    starts: tuple[Count, ...] = Field(min_length=1)


class ProfileDescription(_Strict):
    """One row of ``nvidia-smi mig -lgip``. ``id`` is the hardware's, ``enum_index`` NVML's constant."""

    name: str = Field(min_length=1)
    id: Count
    enum_index: Count
    slices: int = Field(ge=1)
    instances: int = Field(ge=1)
    memory_mib: int = Field(ge=1, alias="memoryMiB")
    multiprocessors: int = Field(ge=1)
    copy_engines: Count
    decoders: Count
    encoders: Count
    jpeg_engines: Count
    ofa_engines: Count
    p2p: bool = Field(default=False, alias="p2p")
    placements: Placements


class ClocksDescription(_Strict):
    """Highest clocks in MHz, as ``nvidia-smi -q -d CLOCK`` prints them."""

    sm_mhz: int = Field(gt=0, alias="smMHz")
    memory_mhz: int = Field(gt=0, alias="memoryMHz")


class ProductDescription(_Strict):
    """What all GPUs of one product share. ``memory_bytes`` is absent on unified-memory GPUs."""

    name: str = Field(min_length=1)
    brand: str
    architecture: str
    cuda_compute_capability: str = Field(pattern=r"^[0-9]+\.[0-9]+$")
    memory_bytes: int | None = Field(default=None, gt=0)
    addressing_mode: str | None = None
    pci_device_id: str | None = Field(default=None, alias="pciDeviceID", pattern=r"^0x[0-9a-f]{8}$")
    pci_subsystem_id: str | None = Field(default=None, alias="pciSubsystemID", pattern=r"^0x[0-9a-f]{8}$")
    power_limit_milliwatts: int | None = Field(default=None, gt=0)
    max_clocks: ClocksDescription | None = None
    mig_profiles: tuple[ProfileDescription, ...] | None = None

    def profile(self, profile_id: int) -> ProfileDescription | None:
        """The profile with the hardware's id ``profile_id``."""
        return next((profile for profile in self.mig_profiles or () if profile.id == profile_id), None)


class ComputeInstanceDescription(_Strict):
    """A part of a GPU instance's compute slices."""

    start: Count
    slices: int = Field(ge=1)


class MigInstanceDescription(_Strict):
    """A GPU instance that exists when the simulation starts.

    ``compute_instances`` absent: one that fills it, so one MIG device; empty: none.
    """

    profile: Count
    start: Count
    compute_instances: tuple[ComputeInstanceDescription, ...] | None = None

    def computing(self, profile: ProfileDescription) -> tuple[ComputeInstanceDescription, ...]:
        """The compute instances in a GPU instance of ``profile``."""
        if self.compute_instances is None:
            return (ComputeInstanceDescription(start=0, slices=profile.slices),)
        return self.compute_instances


class MigDescription(_Strict):
    """MIG mode of one GPU, and its instances."""

    enabled: bool = False
    instances: tuple[MigInstanceDescription, ...] = ()


class GpuDescription(_Strict):
    """One GPU; ``product`` is an index into ``products``. ``mig`` absent means off where the product has MIG."""

    minor: Count
    pci_bus_id: str = Field(alias="pciBusID", pattern=_BUS_ID)
    product: Count = 0
    pcie_root: str | None = Field(default=None, pattern=r"^pci[0-9a-f]{4}:[0-9a-f]{2}$")
    numa_node: Count | None = None
    mig: MigDescription | None = None
    uuid: str | None = Field(default=None, pattern=r"^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    serial: str | None = None


class HardwareDescription(_Strict):
    """What NVML and sysfs say. ``gpus`` are ordered by PCI bus id, which is NVML's index."""

    driver_version: str = Field(pattern=DRIVER_VERSION)
    cuda_driver_version: Count
    products: tuple[ProductDescription, ...] = ()
    gpus: tuple[GpuDescription, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> HardwareDescription:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def product_of(self, index: int) -> ProductDescription:
        return self.products[self.gpus[index].product]


class Interpolated(_Strict):
    """Values that no listing vouches for, by path: ``hardware.products[0].migProfiles[4].ofaEngines``; [*] for all."""

    paths: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(min_length=1)


class MachineDescription(_Strict):
    """A whole machine file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    hardware: HardwareDescription
    sources: tuple[str, ...] = ()
    interpolated: tuple[Interpolated, ...] = ()

    def with_driver(self, version: str, cuda_version: int) -> MachineDescription:
        """The same hardware under another driver; ``cuda_version`` as NVML says it (13040). MachineFileError when one
        is no version. No listing vouches for the two, so they are noted as interpolated."""
        paths = ("hardware.driverVersion", "hardware.cudaDriverVersion")
        noted = Interpolated(paths=paths, reason="chosen for the simulation, another driver was recorded")
        data = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        data["hardware"] |= {"driverVersion": version, "cudaDriverVersion": cuda_version}
        data["interpolated"] = [*data.get("interpolated", ()), noted.model_dump(mode="json")]
        return parse_machine(json.dumps(data), origin=f"{self.name} with driver {version}")


def recorded_machines() -> tuple[str, ...]:
    """Names of the machines that are shipped, sorted."""
    folder = resources.files(__package__) / "machines"
    return tuple(sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json")))


def load_machine(name_or_path: str | Path) -> MachineDescription:
    """A shipped machine by name, or any description by path (it has a folder or ends in .json). MachineFileError."""
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".json"):
        return _load_file(Path(text))
    known = recorded_machines()
    if text not in known:
        raise MachineFileError(
            f"no recorded machine is named {text!r}; there are {', '.join(known)}",
            hint="name one of these, or give the path of a machine file",
        )
    resource = resources.files(__package__) / "machines" / f"{text}.json"
    return parse_machine(resource.read_bytes(), origin=f"recorded machine {text}")


def parse_machine(content: bytes | str, *, origin: str) -> MachineDescription:
    """``content`` as a description; ``origin`` names it in errors."""
    try:
        return MachineDescription.model_validate_json(content)
    except ValidationError as error:
        details = "; ".join(f"{_path(each['loc'])}: {_said(each['msg'])}" for each in error.errors()[:5])
        raise MachineFileError(f"{origin} is not a valid machine description: {details}") from error


def format_machine(description: MachineDescription) -> str:
    """The file's text: stable, and short values on one line so that a table reads as one."""
    return _formatted(description.model_dump(mode="json", by_alias=True, exclude_defaults=True), "") + "\n"


def _load_file(path: Path) -> MachineDescription:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MachineFileError(
            f"cannot read machine file {path}: {error.strerror}",
            hint="`gpu-dra machine list` names the recorded machines; `gpu-dra capture` writes a file",
        ) from error
    return parse_machine(content, origin=f"machine file {path}")


def _contradictions(hardware: HardwareDescription) -> Iterator[str]:
    bus_ids = [gpu.pci_bus_id for gpu in hardware.gpus]
    if bus_ids != sorted(set(bus_ids)):
        yield "gpus: must be ordered by pciBusID, each one once"
    if len({gpu.minor for gpu in hardware.gpus}) != len(hardware.gpus):
        yield "gpus: two have the same minor"
    for number, product in enumerate(hardware.products):
        profiles = product.mig_profiles or ()
        for field in ("id", "enum_index"):
            if len({getattr(profile, field) for profile in profiles}) != len(profiles):
                yield f"products[{number}].migProfiles: two have the same {field}"
    for number, gpu in enumerate(hardware.gpus):
        if gpu.product >= len(hardware.products):
            yield f"gpus[{number}].product: {gpu.product} is not an index into products"
        elif gpu.mig is not None:
            yield from _mig_contradictions(number, gpu.mig, hardware.products[gpu.product])


def _mig_contradictions(number: int, mig: MigDescription, product: ProductDescription) -> Iterator[str]:
    where = f"gpus[{number}].mig"
    if product.mig_profiles is None:
        yield f"{where}: {product.name} has no MIG"
        return
    if mig.instances and not mig.enabled:
        yield f"{where}: has instances, but MIG is not enabled"
    profiles = {profile.id: profile for profile in product.mig_profiles}
    taken: set[int] = set()
    for position, instance in enumerate(mig.instances):
        profile = profiles.get(instance.profile)
        if profile is None or instance.start not in profile.placements.starts:
            yield f"{where}.instances[{position}]: {product.name} has no profile {instance.profile} at {instance.start}"
            continue
        slices = set(range(instance.start, instance.start + profile.placements.size))
        if taken & slices:
            yield f"{where}.instances[{position}]: overlaps another instance"
        taken |= slices
        computing = [each for run in instance.computing(profile) for each in range(run.start, run.start + run.slices)]
        if len(set(computing)) != len(computing) or any(each >= profile.slices for each in computing):
            yield f"{where}.instances[{position}].computeInstances: overlap, or end beyond {profile.name}"


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "the file"


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")


def _formatted(value: Any, indent: str) -> str:
    line = json.dumps(value, ensure_ascii=False)
    room = _OBJECT_LINE if isinstance(value, dict) else _LIST_LINE
    if not isinstance(value, dict | list) or not value or (indent and len(indent) + len(line) <= room):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_formatted(each, inner)}" for key, each in value.items()]
        opening, closing = "{", "}"
    else:
        items = [_formatted(each, inner) for each in value]
        opening, closing = "[", "]"
    body = f",\n{inner}".join(items)
    return f"{opening}\n{inner}{body}\n{indent}{closing}"
