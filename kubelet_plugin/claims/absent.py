"""The refusal of a device that this node does not have."""

from __future__ import annotations

from dra_driver.devices.naming import gpu_name
from dra_driver.errors import DeviceNotFound
from dra_driver.hardware.model import Machine

DELETE_CLAIM = "delete the claim (or its pod) so that it is allocated anew"


def absent_device(device_name: str, machine: Machine) -> DeviceNotFound:
    present = ", ".join(gpu_name(gpu.minor) for gpu in machine.gpus) or "no GPU at all"
    return DeviceNotFound(
        f"device {device_name} does not exist on this node, which has {present}",
        hint=f"the GPU was removed or failed after the claim was allocated; {DELETE_CLAIM}",
    )
