"""What an administrator decides about devices, as the pure functions of this package see it.

A value, made from DriverConfiguration by the controller. Policies for MIG and for sharing join it as fields with
defaults that leave the devices as they are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """``additional_attributes`` adds what NVIDIA's driver does not publish: ``minor`` and ``migCapable``.

    They are off by default because a manifest that selects by them runs with this driver only.
    """

    additional_attributes: bool = False
