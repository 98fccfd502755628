"""The simulated nvidia-smi within this process, on the simulated NVML that it has: no process for each call."""

from __future__ import annotations

import io
import threading

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvidia_smi import SmiFailed
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation.hardware.smi.options import NoSuchGpu
from dra_driver.simulation.hardware.smi.policy import compute_policy


class SmiHere:
    """A ``dra_driver.hardware.compute_policy.RunsSmi``. ``calls``: the command lines; ``error``: what the next raise.
    ``held``: GPUs (UUID) about which a call waits until the event is set.

    It looks for GPUs once, and not for each call.
    """

    def __init__(self, hardware: NvmlHardware) -> None:
        """``hardware`` is started."""
        self._reading = hardware.read()
        self.calls: list[str] = []
        self.error: HardwareError | None = None
        self.held: dict[str, threading.Event] = {}

    def run(self, command: str, *arguments: str) -> str:
        self.calls.append(" ".join(arguments))
        if (held := self.held.get(arguments[2])) is not None:
            assert held.wait(30)
        if self.error is not None:
            raise self.error
        assert arguments[0] == "compute-policy"
        out = io.StringIO()
        try:
            code = compute_policy(arguments[1:], self._reading, out, out)
        except NoSuchGpu as error:
            raise SmiFailed(str(error), code=6, output=str(error)) from error
        if code:
            raise SmiFailed(out.getvalue(), code=code, output=out.getvalue())
        return out.getvalue()
