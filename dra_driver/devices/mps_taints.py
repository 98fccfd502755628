"""The taint of devices whose MPS daemon is dead or stuck: nobody new is sent there until it is gone. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dra_driver.devices.model import AllocatableDevice, DeviceSet, Taint
from dra_driver.devices.naming import device_behind, gpu_name
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Gpu

UNHEALTHY: Final = "mps-unhealthy"


def with_mps_taints(devices: DeviceSet, gpu: Gpu, policy: DevicePolicy) -> DeviceSet:
    """``devices`` of ``gpu``. The daemon of a whole GPU concerns all that is on it, that of a MIG device only this."""
    unhealthy = {each.device for each in gpu.mps_unhealthy}
    if not unhealthy:
        return devices
    taint = Taint(policy.taint_key(UNHEALTHY), "", "NoSchedule")
    everything = gpu_name(gpu.minor) in unhealthy

    def tainted(device: AllocatableDevice) -> AllocatableDevice:
        concerned = everything or device_behind(device.name) in unhealthy
        return replace(device, taints=(*device.taints, taint)) if concerned else device

    return replace(devices, devices=tuple(map(tainted, devices.devices)))
