"""What our own code makes of the GPUs: the machine, its inventory and devices, its description."""

from __future__ import annotations

import json
import re

from api.node_inventory import MachineStatus
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.inventory import machine_from_status, machine_to_status
from dra_driver.simulation.hardware import MachineDescription
from dra_driver.simulation.hardware.capture import describe
from dra_driver.slices.encode import encode_device
from e2e.gpu_check.facts import Difference, Facts, compare, flat, without_uuids
from e2e.gpu_check.side import Side

_INSTANCE_ID = re.compile(r"instances\[\d+\]\.id$")


def machine(side: Side) -> Facts:
    """Every field of every GPU as the adapter reads it, and the GPUs that it cannot read. Read anew, for the time.

    Ids of instances are left out: they follow the order in which these were made, which nothing records.
    """
    reading = side.hardware.read()
    facts = {name: value for name, value in flat(reading.machine) if not _INSTANCE_ID.search(name)}
    facts |= {f"GPU {each.index}, problem": without_uuids(each.message) for each in reading.problems}
    return facts


def devices(side: Side) -> Facts:
    """The devices that the node would publish without any rule, as they are in a ResourceSlice."""
    offered = allocatable_devices(side.machine, DevicePolicy())
    return {each.name: without_uuids(json.dumps(encode_device(each))) for each in offered.devices}


def inventory_loses(side: Side) -> tuple[Difference, ...]:
    """What the NodeInventory does not bring back of the machine."""
    text = machine_to_status(side.machine).model_dump_json(by_alias=True, exclude_none=True)
    again = machine_from_status(MachineStatus.model_validate_json(text))
    found = compare(dict(flat(side.machine)), dict(flat(again)))
    return tuple(Difference(each.what, each.here, each.there, "NodeInventory") for each in found)


def captured(side: Side) -> MachineDescription:
    """This machine as a file would describe it."""
    title = f"{len(side.machine.gpus)} GPUs"
    return describe(side.machine, side.hardware, name="captured", title=title, source="gpu-check")


def description(side: Side) -> Facts:
    """What ``gpu-dra capture`` writes down."""
    return dict(flat(captured(side).hardware.model_dump(exclude_none=True)))
