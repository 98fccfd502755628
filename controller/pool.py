"""What one node offers by its inventory and the policy, before claims are looked at (``retention``). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from api.node_inventory import NodeInventoryStatus
from controller.mig_problems import mig_problems
from controller.problem import Problem, some_of
from controller.sharing_refused import not_shared
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import DeviceSet
from dra_driver.devices.policy import DevicePolicy
from dra_driver.errors import DriverError
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.kube.interface import Obj
from dra_driver.slices.fallback import reduce_to
from dra_driver.slices.features import ApiFeatures

HARDWARE_READY = "HardwareReady"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node's inventory offers. ``device_set`` is None when nothing can be said: what is published stays.

    ``not_shared``: what a rule wants shared and is offered otherwise, in sentences."""

    device_set: DeviceSet | None
    problems: tuple[Problem, ...] = ()
    not_shared: tuple[str, ...] = ()


def offer(inventory: Obj, policy: DevicePolicy) -> Offer:
    """The devices of one NodeInventory.

    Hardware that the plugin could not read (condition HardwareReady is False) is an empty pool: consumers see it
    complete and empty. A plugin that has not said anything yet changes nothing.
    """
    name = inventory["metadata"]["name"]
    try:
        status = NodeInventoryStatus.model_validate(inventory.get("status") or {})
        if status.machine is not None:
            machine = machine_from_status(status.machine)
            offered = allocatable_devices(machine, policy, name)
            problems = tuple(mig_problems(machine, policy, name))
            return Offer(offered, problems, not_shared(machine, offered, policy, name))
    except ValidationError as error:
        return _unknown("InvalidInventory", f"NodeInventory {name} cannot be read: {_first(error)}")
    except ValueError as error:
        return _unknown("InvalidInventory", f"NodeInventory {name} cannot be read: {error}")
    except DriverError as error:
        return _unknown(error.reason, f"NodeInventory {name}: {error}")
    for condition in status.conditions:
        if condition.type == HARDWARE_READY and condition.status == "False":
            message = condition.message or condition.reason
            return Offer(DeviceSet(), (Problem("HardwareNotReady", f"the pool is empty: {message}"),))
    return Offer(None)


def _unknown(reason: str, message: str) -> Offer:
    return Offer(None, (Problem(reason, message),))


def is_degraded(offered: DeviceSet, features: ApiFeatures) -> Problem | None:
    """What the API server makes us leave out of the publication, if anything."""
    reduction = reduce_to(offered, features)
    if reduction.device_set == offered:
        return None
    message = (
        "the API server drops fields of ResourceSlices (feature gates are off); devices are published without them"
    )
    if reduction.withheld:
        message += f", and withheld where that would be unsafe: {some_of(reduction.withheld)}"
    return Problem("ApiServerDropsFields", message)


def _first(error: ValidationError) -> str:
    details: Any = error.errors()[0]
    path = ".".join(str(part) for part in ("status", *details["loc"]))
    return f"{path}: {details['msg']}"
