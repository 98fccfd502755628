"""What was made of the configuration of sharing on a node, for the condition and the Event that say so. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from api.fractions import SharingBackend
from api.node_inventory import SHARING_CONFIGURED, NodeSharing
from controller.problem import Told, some_of
from controller.sharing import NodeConfigured
from dra_driver.devices.model import AllocatableDevice, DeviceKind, DeviceSet
from dra_driver.devices.naming import device_behind
from dra_driver.devices.plugin_sharing import WHOLE_GPU, profile_of, resource_name
from dra_driver.devices.shares import BACKEND, MEMORY, SHARES, STRATEGY, any_shared, form_of, is_renamed
from dra_driver.observability.events import EventKind
from dra_driver.slices.fallback import reduce_to
from dra_driver.slices.features import ApiFeatures

IN_FORCE = "SharingInForce"
PARTLY = "SharingPartlyInForce"
NOT_IN_FORCE = "SharingNotInForce"
NONE = "SharingNotConfigured"


def sharing_told(
    found: NodeConfigured, offered: DeviceSet, refused: Sequence[str], features: ApiFeatures, published: DeviceSet
) -> Told | None:
    """The condition about sharing; None while there is nothing to go by.

    ``offered`` is what is wanted, ``published`` what there is while claims have devices.
    """
    if not found.known:
        return None
    draining = _draining(reduce_to(offered, features).device_set, published)
    shared = [device for device in offered.devices if device.allow_multiple_allocations and device.name not in draining]
    what = "; ".join(_what_is_shared(shared, features))
    refused = [*refused, *_withheld(shared, features)]
    stays = [f"{some_of(draining)} {_stays(draining)}"] if draining else []
    source = f"by {found.in_force.source}" if found.in_force else ""
    if found.unused:
        reason, because = found.unused
        in_force = f"what was in force stays: {source}" if source else "nothing is shared by it"
        return _told("False", reason, "; ".join(filter(None, (because, in_force, what, *stays))))
    notes = [*refused, *_absent(found.in_force, offered), *found.dropped, *stays]
    is_shared = bool(what) or bool(draining and any_shared(offered))
    if not is_shared:
        because = found.nothing or f"nothing is shared {source}".rstrip()
        # Where rules ask for shares, nobody misses a ConfigMap.
        message = ". ".join(notes if refused and not found.exists else (because, *notes))
        if found.in_force or refused:
            # That a node has nothing of a resource is usual where one ConfigMap is for many nodes.
            kind = EventKind.WARNING if refused or found.dropped else EventKind.NORMAL
            return Told(SHARING_CONFIGURED, "False", NOT_IN_FORCE, message, kind)
        return Told(SHARING_CONFIGURED, "False", NONE, message, EventKind.NORMAL, is_usual=not found.exists)
    message = ". ".join(filter(None, (f"{what} ({source})" if what and source else what or source, *notes)))
    return _told("False", PARTLY, message) if refused else _told("True", IN_FORCE, message)


def _draining(wanted: DeviceSet, published: DeviceSet) -> frozenset[str]:
    """Devices that are published as they were shared before, since claims have some of them (``retention``)."""
    forms = {device_behind(device.name): form_of(device) for device in wanted.devices}
    behind = ((device_behind(device.name), form_of(device)) for device in published.devices)
    return frozenset(name for name, form in behind if name in forms and forms[name] != form)


def _stays(names: Collection[str]) -> str:
    if len(names) == 1:
        return "stays as before until the claims on it have ended"
    return "stay as before until the claims on them have ended"


def _told(status: str, reason: str, message: str) -> Told:
    kind = EventKind.NORMAL if status == "True" else EventKind.WARNING
    return Told(SHARING_CONFIGURED, status, reason, message, kind)


def _what_is_shared(shared: Iterable[AllocatableDevice], features: ApiFeatures) -> Iterator[str]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for device in shared:
        if SHARES in device.capacity:
            groups[_replicas(device, features)].append(device.name)
        elif features.consumable:
            groups[_parts(device)].append(device.name)
    for (form, how), names in groups.items():
        yield f"{form} {some_of(names)} ({how})"


def _replicas(device: AllocatableDevice, features: ApiFeatures) -> tuple[str, str]:
    shares = device.capacity[SHARES]
    one = ", one to a request" if shares.policy and shares.policy.maximum < shares.value else ""
    count, strategy = shares.value.value(), device.attributes[STRATEGY]
    return f"{_resource(device)}: {count} {_form(device, features)} of each of", f"{strategy}{one}"


def _parts(device: AllocatableDevice) -> tuple[str, str]:
    """Of a device without replicas."""
    backend = device.attributes.get(BACKEND)
    fence = f"fenced by {backend}" if backend not in (None, SharingBackend.NONE.value) else "not fenced"
    memory = device.capacity.get(MEMORY)
    if memory is None or memory.policy is None or not memory.policy.default:
        return f"{_resource(device)}: any number of shares of each of", fence
    return f"{_resource(device)}: fractions of {memory.value} in steps of {memory.policy.step} of each of", fence


def _withheld(shared: Iterable[AllocatableDevice], features: ApiFeatures) -> Iterator[str]:
    names = [device.name for device in shared if SHARES not in device.capacity]
    if names and not features.consumable:
        yield (
            f"{some_of(names)} cannot be offered in parts: the API server has no consumable capacity (feature gate "
            "DRAConsumableCapacity), and whoever asked for a part would get all of it"
        )


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
