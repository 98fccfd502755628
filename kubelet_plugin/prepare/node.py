"""The node as prepares need it: whose it is, what is on it, where things are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dra_driver.cdi.spec import ContainerEdits
from dra_driver.cdi.store import CdiStore
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.allocated import ClaimReader
from kubelet_plugin.kinds.mig.hardware import MigHardware
from kubelet_plugin.prepare.admission import Rules


class EditsProvider(Protocol):
    """What containers need of the driver (``dra_driver.cdi.edits.DriverEdits``). All raise ``HardwareError``."""

    def common(self, driver_version: str) -> ContainerEdits: ...

    def gpu(self, gpu: Gpu) -> ContainerEdits: ...

    def mig_parent(self, gpu: Gpu, profile: str) -> ContainerEdits: ...


@dataclass(frozen=True, slots=True)
class Node:
    """The node as the work needs it. ``machine`` gives the current snapshot or raises ``HardwareError``."""

    driver_name: str
    pool: str
    rules: Rules
    api: ClaimReader
    machine: Callable[[], Machine]
    mig: MigHardware
    cdi: CdiStore
    edits: EditsProvider

    @property
    def boot_id(self) -> str:
        return self.rules.boot_id
