"""What a claim whose record was damaged may have left on the hardware. Pure.

Its CDI file still names its devices, and a name says where the instance is; so the claim can be unprepared as a whole.
"""

from __future__ import annotations

from dataclasses import replace

from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.kinds.mig.owners import held_mig_devices
from kubelet_plugin.kinds.mig.place import place_of
from kubelet_plugin.kinds.mig.planning import WantedDevice, making_steps
from kubelet_plugin.prepare.admission import Rules


def has_lost_mig_devices(entry: ClaimEntry) -> bool:
    """Whether the hardware has to be known to undo what is left of the claim."""
    return entry.state is ClaimState.RECORD_LOST and any(held_mig_devices(entry, Machine("", 0)))


def with_lost_steps(entry: ClaimEntry, machine: Machine, rules: Rules) -> ClaimEntry:
    """``entry`` with the GPUs of its MIG devices, and the steps that made them where claims make them."""
    wanted: list[WantedDevice] = []
    uuids: dict[str, str] = {}
    for held, name, gpu in held_mig_devices(entry, machine):
        place = place_of(name, gpu) if gpu else None
        if gpu is not None and place is not None:
            device = held.answer.device_name
            wanted.append(WantedDevice(device, gpu, place, rules.mig.for_gpu(rules.node, gpu)))
            uuids[device] = gpu.uuid
    devices = tuple(replace(held, gpu_uuid=uuids.get(held.answer.device_name, "")) for held in entry.devices)
    steps = (*(step.record() for step in making_steps(wanted)), *entry.steps)
    return replace(entry, devices=devices, steps=steps)
