"""The list of checks: what each one asks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from e2e.gpu_check import adapter, codes, files, time_slices
from e2e.gpu_check.facts import Difference, Facts
from e2e.gpu_check.side import Side


@dataclass(frozen=True, slots=True)
class Check:
    """``ask`` is asked on the hardware and on its simulation, and the facts are compared. ``against_node`` holds our
    answers against something else on this machine; the simulation has no part in it."""

    name: str
    does: str
    ask: Callable[[Side], Facts]
    against_node: Callable[[Side], tuple[Difference, ...]] | None = None
    after_shutdown: bool = False


CHECKS = (
    Check("adapter", "every field of every GPU, MIG profile and instance", adapter.machine),
    Check(
        "inventory",
        "the NodeInventory and back, and the devices that would be published",
        adapter.devices,
        adapter.inventory_loses,
    ),
    Check("capture", "what gpu-dra capture writes down", adapter.description),
    Check("error codes", "wrong arguments, and what the product does not have", codes.errors),
    Check("readings", "temperature, power, memory, modes: is there an answer", codes.readings),
    Check("events", "registration for MIG changes and XID errors, and a wait", codes.events),
    Check("driver files", "libraries and programs, against those loaded", files.driver_files, files.unlike_loaded),
    Check("CDI edits", "device nodes, mounts and hooks, against those that exist", files.edits, files.unlike_node),
    Check("nvidia-smi", "its list and its query, against the adapter", files.smi_list, files.unlike_smi),
    Check("time slices", "whether nvidia-smi's list of them is understood", time_slices.intervals),
    Check("shutdown", "NVML after it was shut down", codes.after_shutdown, after_shutdown=True),
)
