"""What GPUs report by themselves: changes of MIG and XID errors, through an NVML event set.

A hint and no more: events can be lost (nvml.h gives no promise, and a reset ends a registration), and a GPU may support
none, so whoever waits here reads the hardware now and then all the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml.binding import INIT_FLAG_NO_GPUS, call, query
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.errors import NvmlCallError

logger = logging.getLogger(__name__)

_XID = 0x8  # nvmlEventTypeXidCriticalError
_MIG_CHANGE = 0x100  # nvmlEventMigConfigChange
_WANTED = _XID | _MIG_CHANGE


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """Something happened to the GPU ``uuid`` ("" when NVML could not say which)."""

    uuid: str
    xid: int | None = None  # None: its MIG mode or its MIG instances changed


class GpuEvents:
    """One event set for all GPUs of the node. For one thread; NVML must have been loaded (``NvmlHardware.start``).

    It holds an initialisation of NVML of its own while it is open: nobody else's shutdown takes the library away from
    under a wait. So whoever wants to begin from nothing closes it first.
    """

    def __init__(self) -> None:
        self._set: Any = None
        self._initialised = False

    def open(self) -> int:
        """Register every GPU for what it supports; how many support anything. HardwareError when NVML refuses."""
        call("nvmlInitWithFlags", INIT_FLAG_NO_GPUS)
        self._initialised = True
        try:
            self._set = call("nvmlEventSetCreate")
            return sum(self._register(index) for index in range(int(call("nvmlDeviceGetCount"))))
        except HardwareError:
            self.close()
            raise

    def wait(self, seconds: float) -> GpuEvent | None:
        """The next event; None after ``seconds`` without one. It waits in C, where other threads go on.

        NvmlCallError when a GPU is lost, or the event set is of no use any more: close it and open it again.
        """
        try:
            data = call("nvmlEventSetWait_v2", self._set, int(seconds * 1000))
        except NvmlCallError as error:
            if error.code == Return.TIMEOUT:
                return None
            raise
        uuid = str(query("nvmlDeviceGetUUID", data.device) or "")
        return GpuEvent(uuid, int(data.eventData) if data.eventType & _XID else None)

    def close(self) -> None:
        """Closing twice, or what never opened, does nothing. What NVML does not free goes with the process."""
        for function, arguments, held in (
            ("nvmlEventSetFree", (self._set,), self._set is not None),
            ("nvmlShutdown", (), self._initialised),
        ):
            try:
                if held:
                    call(function, *arguments)
            except HardwareError as error:
                logger.debug("the event set was not closed: %s", error)
        self._set, self._initialised = None, False

    def _register(self, index: int) -> bool:
        device = f"GPU {index}"
        try:
            handle = call("nvmlDeviceGetHandleByIndex", index, device=device)
            types = int(query("nvmlDeviceGetSupportedEventTypes", handle, device=device) or 0) & _WANTED
            if types:
                call("nvmlDeviceRegisterEvents", handle, types, self._set, device=device)
        except NvmlCallError as error:
            # A lost GPU, or one that refuses: the readings tell what is wrong with it.
            logger.debug("no events of GPU %d: %s", index, error)
            return False
        return bool(types)
