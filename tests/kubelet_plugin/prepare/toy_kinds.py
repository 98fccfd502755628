"""A kind of device and a wrapper that the plugin does not have, each all in one place: what a new one has to write.

A toy is a file that exists while a claim is prepared; the number in it is known only once it is made. A ribbon is put
around a whole GPU whose configuration asks for time slices: another file, named after the GPU.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.claim_config import ClaimConfig, GpuConfig, VfioDeviceConfig
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.errors import DeviceNotFound, HardwareError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.configs import TakenConfig
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.prepare.kind import ClaimDevice, Kind, Mended, Others, Place, Refusal, Step, StepRunner, Wrapper

_NAME = re.compile(r"toy-([a-z]+)")


@dataclass(frozen=True, slots=True)
class ToyPlace:
    name: str
    gpu_uuid: str = ""

    def excludes(self, other: Place) -> bool:
        """Toys of one first letter cannot exist at once."""
        return isinstance(other, ToyPlace) and other.name[0] == self.name[0]


@dataclass(frozen=True, slots=True)
class MakeFile:
    """``kind``: whose file it is."""

    kind: str
    name: str
    interval: str = ""

    def does(self) -> str:
        return f"make file {self.name}"

    def undo_does(self) -> str:
        return f"remove file {self.name}"

    def done_when(self) -> str:
        return "it is there"

    def record(self) -> StepRecord:
        arguments = {"name": self.name}
        return StepRecord(self.kind, {**arguments, "interval": self.interval} if self.interval else arguments)


class FileRunner:
    """``fails``: names of files that cannot be made."""

    do_needs_intent = True
    undo_needs_intent = True
    survives_reboot = True

    def __init__(self, folder: Path, fails: set[str]) -> None:
        self._folder = folder
        self._fails = fails

    def observe(self, step: MakeFile, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        path = self._folder / step.name
        return {"number": path.read_text()} if path.exists() else None

    def do(self, step: MakeFile, done: Sequence[StepRecord]) -> Mapping[str, str]:
        if step.name in self._fails:
            raise HardwareError(f"no room for {step.name}")
        taken = {path.read_text() for path in self._folder.iterdir()}
        number = next(str(each) for each in itertools.count(1) if str(each) not in taken)
        temporary = self._folder.with_suffix(".new")
        temporary.write_text(number)
        temporary.rename(self._folder / step.name)
        return {"number": number}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        (self._folder / record.arguments["name"]).unlink(missing_ok=True)


class ToyKind(Kind):
    name = "toy"
    takes = TakenConfig("toy", VfioDeviceConfig().normalize())

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.fails: set[str] = set()

    def names(self, device_name: str) -> bool:
        return _NAME.fullmatch(device_name) is not None

    def find(self, device_name: str, machine: Machine) -> ToyPlace:
        match = _NAME.fullmatch(device_name)
        if match is None or match[1] == "none":
            raise DeviceNotFound(f"there is no {device_name}")
        return ToyPlace(match[1])

    def locks(self, device_name: str, gpu_uuid: str) -> tuple[str, ...]:
        return ("toys",)

    def edits(self, place: Place) -> ContainerEdits:
        return ContainerEdits(env=("TOYS=yes",))

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[Step, ...]:
        return tuple(MakeFile("Toy", device.allocated.device) for device in devices)

    def again(self, record: StepRecord) -> Step:
        return MakeFile("Toy", record.arguments["name"])

    def runners(self) -> Mapping[str, StepRunner]:
        return {"Toy": FileRunner(self.folder, self.fails)}

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> ContainerEdits:
        name = device.allocated.device
        numbers = [record.result["number"] for record in done if record == _like("Toy", name, record)]
        return ContainerEdits(env=tuple(f"TOY={number}" for number in numbers))

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        there = (self.folder / device.prepared.device_name).exists()
        return "" if there else f"somebody has taken {device.prepared.device_name} away"

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        steps = (MakeFile("Toy", device.prepared.device_name).record() for device in devices)
        return Mended(tuple(devices), tuple(steps))


class Ribbon(Wrapper):
    name = "ribbon"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.fails: set[str] = set()

    def wraps(self, device: ClaimDevice) -> bool:
        return self.honours(device.config)

    def honours(self, config: ClaimConfig) -> bool:
        return _interval(config) is not None

    def refuses(self, device: ClaimDevice, beside: Sequence[ClaimDevice], others: Others) -> Refusal | None:
        """One GPU has one interval, whoever shares it."""
        wanted, uuid = _interval(device.config), device.place.gpu_uuid
        records = (record for entry in others.entries for record in entry.steps)
        taken = {record.arguments["interval"] for record in records if _is_of(record, uuid)}
        taken |= {_interval(each.config) or "Default" for each in beside if each.place.gpu_uuid == uuid}
        if not taken - {wanted or "Default"}:
            return None
        return Refusal("sharing.timeSlicingConfig.interval", wanted or "Default", "ask for what the others have")

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[Step, ...]:
        wanted = {device.place.gpu_uuid: _interval(device.config) or "Default" for device in devices}
        return tuple(MakeFile("Ribbon", uuid, interval) for uuid, interval in wanted.items())

    def still_needed(self, record: StepRecord, others: Sequence[ClaimEntry]) -> bool:
        return any(_is_of(each, record.arguments["name"]) for entry in others for each in entry.steps)

    def again(self, record: StepRecord) -> Step:
        return MakeFile("Ribbon", record.arguments["name"], record.arguments["interval"])

    def runners(self) -> Mapping[str, StepRunner]:
        return {"Ribbon": FileRunner(self.folder, self.fails)}

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> ContainerEdits:
        """By its records, since a repetition may not know the configuration."""
        uuid = device.place.gpu_uuid
        return ContainerEdits(env=tuple(f"RIBBON={each.result['number']}" for each in done if _is_of(each, uuid)))

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        has_one = any(_is_of(record, device.gpu_uuid) for record in entry.steps)
        gone = has_one and not (self.folder / device.gpu_uuid).exists()
        return f"the ribbon of {device.prepared.device_name} is gone" if gone else ""

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """The interval cannot be known any more, and undoing needs only the GPU."""
        steps = (MakeFile("Ribbon", held.gpu_uuid, "").record() for held in devices if held.gpu_uuid)
        return Mended(tuple(devices), tuple(steps))


def _like(kind: str, name: str, record: StepRecord) -> StepRecord:
    return StepRecord(kind, {"name": name}, record.result)


def _is_of(record: StepRecord, uuid: str) -> bool:
    return record.kind == "Ribbon" and record.arguments["name"] == uuid


def _interval(config: ClaimConfig) -> str | None:
    if not isinstance(config, GpuConfig) or config.sharing is None or config.sharing.time_slicing_config is None:
        return None
    return str(config.sharing.time_slicing_config.interval)
