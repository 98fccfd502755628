"""What was made of the configuration of sharing on a node, for the condition and the Event that say so. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from api.node_inventory import SHARING_CONFIGURED, NodeSharing
from controller.problem import Told, some_of
from controller.sharing import NodeConfigured
from dra_driver.devices.model import AllocatableDevice, DeviceKind, DeviceSet
from dra_driver.devices.naming import gpu_name
from dra_driver.devices.plugin_sharing import WHOLE_GPU, profile_of, resource_name
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.shares import SHARES, STRATEGY, Refused, is_renamed, sharing_of
from dra_driver.hardware.model import Machine
from dra_driver.observability.events import EventKind
from dra_driver.slices.features import ApiFeatures

IN_FORCE = "SharingInForce"
PARTLY = "SharingPartlyInForce"
NONE = "SharingNotConfigured"


def not_shared(machine: Machine, offered: DeviceSet, policy: DevicePolicy, node: str) -> tuple[str, ...]:
    """What a rule wants shared and is offered otherwise: sentences for people."""
    return tuple(dict.fromkeys(_not_shared(machine, offered, policy, node)))


def sharing_told(
    found: NodeConfigured, offered: DeviceSet, refused: Sequence[str], features: ApiFeatures
) -> Told | None:
    """The condition about sharing; None while there is nothing to go by."""
    if not found.known:
        return None
    shared = [device for device in offered.devices if SHARES in device.capacity]
    what = "; ".join(_what_is_shared(shared, features))
    source = f"by {found.in_force.source}" if found.in_force else ""
    if found.unused:
        reason, because = found.unused
        stays = f"what was in force stays: {source}" if source else "nothing is shared by it"
        return _told("False", reason, "; ".join(filter(None, (because, stays, what))))
    notes = [*refused, *_absent(found.in_force, offered), *found.dropped]
    message = ". ".join(filter(None, (f"{what} ({source})" if what and source else what or source, *notes)))
    if refused:
        return _told("False", PARTLY, message)
    if not shared and found.in_force is None:
        return Told(SHARING_CONFIGURED, "False", NONE, message, EventKind.NORMAL, is_usual=True)
    return _told("True", IN_FORCE, message)


def _told(status: str, reason: str, message: str) -> Told:
    kind = EventKind.NORMAL if status == "True" else EventKind.WARNING
    return Told(SHARING_CONFIGURED, status, reason, message, kind)


def _what_is_shared(shared: Iterable[AllocatableDevice], features: ApiFeatures) -> Iterator[str]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for device in shared:
        shares = device.capacity[SHARES]
        one = ", one to a request" if shares.policy and shares.policy.maximum < shares.value else ""
        count, strategy = shares.value, device.attributes[STRATEGY]
        groups[f"{_resource(device)}: {count} {_form(device, features)} of each of", f"{strategy}{one}"].append(
            device.name
        )
    for (form, how), names in groups.items():
        yield f"{form} {some_of(names)} ({how})"


def _form(device: AllocatableDevice, features: ApiFeatures) -> str:
    if features.consumable:
        return "shares"
    if device.consumes and features.partitionable:
        return "replica devices, which draw from one counter set,"
    return "plain replica devices"


def _resource(device: AllocatableDevice) -> str:
    profile = device.attributes.get("profile") if device.kind is DeviceKind.MIG else None
    return resource_name(None if profile is None else str(profile)) + (".shared" if is_renamed(device) else "")


def _absent(in_force: NodeSharing | None, offered: DeviceSet) -> Iterator[str]:
    """Resources of which the node offers nothing: as a rule, the same configuration is for other nodes too."""
    there = {_resource(device).removesuffix(".shared") for device in offered.devices}
    for shared in in_force.resources if in_force else ():
        is_ours = shared.resource == WHOLE_GPU or profile_of(shared.resource) is not None
        if is_ours and shared.resource not in there:
            yield f"this node offers no {shared.resource}"


def _not_shared(machine: Machine, offered: DeviceSet, policy: DevicePolicy, node: str) -> Iterator[str]:
    if not policy.sharing.rules:
        return
    gpus = {gpu.uuid: gpu for gpu in machine.gpus}
    for device in offered.devices:
        gpu = gpus[device.gpu_uuid]
        profile = str(device.attributes["profile"]) if device.kind is DeviceKind.MIG else None
        sharing = sharing_of(policy, node, gpu, profile)
        if isinstance(sharing, Refused):
            yield f"{device.name} is not shared: {sharing.because}"
        elif sharing is not None and SHARES not in device.capacity:
            yield (
                f"MIG devices of {profile} on {gpu_name(gpu.minor)} are not shared: claims create them, and each "
                "takes its own away again. Let an administrator make them (a rule with mode: static in spec.mig)"
            )
