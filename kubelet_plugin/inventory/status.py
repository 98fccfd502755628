"""The content of a NodeInventory's status, and the smallest patch that brings it about. Pure functions.

A status is compared with what the API server has, so that nothing is written when nothing changed: times are kept
while their condition stays, and problems are texts without times or counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.node_inventory import MIG_LAYOUT_APPLIED, Condition, NodeInventoryStatus, Registration
from dra_driver.hardware.inventory import machine_to_status
from kubelet_plugin.endpoint.connection import RegistrationState
from kubelet_plugin.hardware.watch import HardwareState

HARDWARE_READY = "HardwareReady"
KUBELET_REGISTERED = "KubeletRegistered"

_MAX_MESSAGE = 1024
_UNSET = object()


@dataclass(frozen=True, slots=True)
class PluginInstance:
    """Who writes. ``instance`` is the pod's UID where there is one, so that a restarted container is the same."""

    instance: str
    version: str


def registration_block(plugin: PluginInstance, state: RegistrationState) -> Registration:
    return Registration(
        plugin_instance=plugin.instance,
        plugin_version=plugin.version,
        registered=state.registered,
        registrations=state.registrations,
    )


def build_status(
    hardware: HardwareState,
    registration: Registration,
    registration_condition: Condition | None,
    answer: str | None,
    layout_condition: Condition | None = None,
) -> NodeInventoryStatus:
    """Conditions come without times; :func:`with_times` fills them in."""
    conditions = [hardware_condition(hardware)]
    conditions += [each for each in (registration_condition, layout_condition) if each is not None]
    return NodeInventoryStatus(
        machine=machine_to_status(hardware.machine) if hardware.machine is not None else None,
        registration=registration,
        answer=answer,
        conditions=conditions,
    )


def hardware_condition(hardware: HardwareState) -> Condition:
    if hardware.problem:
        return _condition(HARDWARE_READY, "False", "HardwareUnavailable", hardware.problem)
    if hardware.gpu_problems:
        texts = "; ".join(f"GPU {problem.index}: {problem.message}" for problem in hardware.gpu_problems)
        return _condition(HARDWARE_READY, "False", "GpuUnreadable", texts)
    if hardware.machine is None:
        return _condition(HARDWARE_READY, "Unknown", "NotReadYet", "the first reading has not ended")
    if not hardware.machine.gpus:
        driver = hardware.machine.driver_version
        return _condition(HARDWARE_READY, "False", "NoGpus", f"the NVIDIA driver {driver} runs here and counts no GPU")
    return _condition(HARDWARE_READY, "True", "HardwareRead", "")


def registration_condition(state: RegistrationState, registry: str) -> Condition:
    """``registry``: the folder in which the kubelet should have found us."""
    if state.registered:
        return _condition(KUBELET_REGISTERED, "True", "Registered", "")
    if state.refusal:
        return _condition(KUBELET_REGISTERED, "False", "Refused", f"the kubelet refused this plugin: {state.refusal}")
    text = f"the kubelet has not asked for this plugin; does it run, and does it watch {registry}?"
    return _condition(KUBELET_REGISTERED, "False", "NotAsked", text)


def with_times(wanted: dict[str, Any], present: dict[str, Any], now: str) -> dict[str, Any]:
    """``wanted`` with each condition's lastTransitionTime: the present one while its status stays, else ``now``.

    Conditions of other types are the controller's and stay: a merge patch replaces the list as a whole.
    """
    before = {condition["type"]: condition for condition in present.get("conditions") or ()}
    conditions = []
    for condition in wanted.get("conditions") or ():
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"] and old.get("lastTransitionTime")
        conditions.append({**condition, "lastTransitionTime": old["lastTransitionTime"] if same else now})
    ours = {HARDWARE_READY, KUBELET_REGISTERED, MIG_LAYOUT_APPLIED, *(condition["type"] for condition in conditions)}
    conditions += [condition for kind, condition in before.items() if kind not in ours]
    return {**wanted, "conditions": conditions}


def merge_patch(present: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from ``present`` to ``wanted``; empty when they are equal. Null removes a key."""
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        old = present.get(key, _UNSET)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = merge_patch(old, value)
            if inner:
                patch[key] = inner
        elif value != old:
            patch[key] = value
    patch.update(dict.fromkeys((key for key in present if key not in wanted), None))
    return patch


def _condition(kind: str, status: str, reason: str, message: str) -> Condition:
    return Condition.model_validate({"type": kind, "status": status, "reason": reason, "message": _clip(message)})


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 3] + "..."
