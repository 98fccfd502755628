"""The runner of each kind of step, built from what the node has."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.cdi.store import CdiStore
from kubelet_plugin.kinds.mig.capabilities import CapabilityReader, InstanceCapabilities
from kubelet_plugin.kinds.mig.hardware import MigHardware
from kubelet_plugin.kinds.mig.refused import RefusedPlacements
from kubelet_plugin.kinds.mig.runners import mig_runners
from kubelet_plugin.prepare.apply import StepRunner
from kubelet_plugin.prepare.cdi_file import CDI_FILE, CdiFileRunner


@dataclass(frozen=True, slots=True)
class MigTools:
    """MIG as prepares need it: the hardware, what is in its way, and where the driver says which nodes belong to it."""

    hardware: MigHardware
    capabilities: CapabilityReader
    refused: RefusedPlacements


def standard_runners(store: CdiStore, mig: MigTools) -> dict[str, StepRunner]:
    """By kind of step."""
    return {
        **mig_runners(mig.hardware, mig.refused),
        CDI_FILE: CdiFileRunner(store, InstanceCapabilities(mig.hardware, mig.capabilities)),
    }
