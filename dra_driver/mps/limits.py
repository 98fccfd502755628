"""How many clients one MPS server takes. Facts only.

NVIDIA Multi-Process Service, "Client-Server Connection Limits": 48 for each device of Volta and newer, 16 before. The
device plugin (cmd/mps-control-daemon/mps/device.go) counts Volta itself among the older ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dra_driver.hardware.model import Gpu

_BEFORE_VOLTA: Final[Mapping[str, int]] = MappingProxyType({"Kepler": 16, "Maxwell": 16, "Pascal": 16})
_SINCE_VOLTA: Final = 48


def client_limit(gpu: Gpu) -> int:
    """The most clients that a server on ``gpu``, or on a MIG device of it, has at once."""
    return _BEFORE_VOLTA.get(gpu.architecture, _SINCE_VOLTA)
