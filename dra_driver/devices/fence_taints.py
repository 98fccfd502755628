"""Taints of devices that can hold nobody to anything: nobody new is sent there until they can again. Pure.

``mps-unhealthy``: the MPS daemon of the device is dead or stuck. ``fence-gone``: a container on it may have more than
its share, since its limits were taken away.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from dra_driver.devices.model import AllocatableDevice, DeviceSet, Taint
from dra_driver.devices.naming import device_behind, gpu_name
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Gpu

UNHEALTHY: Final = "mps-unhealthy"
GONE: Final = "fence-gone"


def with_fence_taints(devices: DeviceSet, gpu: Gpu, policy: DevicePolicy) -> DeviceSet:
    """``devices`` of ``gpu``. What is wrong with a GPU as a whole concerns all on it, with a MIG device only this."""
    tainted = _tainted(devices, gpu, policy.taint_key(UNHEALTHY), {each.device for each in gpu.mps_unhealthy})
    return _tainted(tainted, gpu, policy.taint_key(GONE), set(gpu.unfenced))


def _tainted(devices: DeviceSet, gpu: Gpu, key: str, names: Collection[str]) -> DeviceSet:
    if not names:
        return devices
    everything = gpu_name(gpu.minor) in names

    def tainted(device: AllocatableDevice) -> AllocatableDevice:
        concerned = everything or device_behind(device.name) in names
        return replace(device, taints=(*device.taints, Taint(key, "", "NoSchedule"))) if concerned else device

    return replace(devices, devices=tuple(map(tainted, devices.devices)))
