"""Claim templates for what containers ask for. Pure.

A template is named after its workload and container, so that the same manifest gives the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from dra_driver.cli.convert import sizes
from dra_driver.cli.convert.model import (
    DRIVER,
    FRACTION,
    MOST_DEVICES,
    Ask,
    CannotConvertError,
    Note,
    Path,
    Place,
    Problem,
    Remark,
)
from dra_driver.cli.convert.sizes import Size
from dra_driver.quantity import Quantity

KIND: Final = "ResourceClaimTemplate"
API_VERSION: Final = "resource.k8s.io/v1"

_LONGEST_NAME = 63
_OWN_LIMITS = f'device.attributes["{DRIVER}"].sharingBackend == "Cgroup"'
_SEVERAL = (
    "MPS holds a container to the limits of one GPU. Of several only the driver's own limits hold (Cgroup: driver 615 "
    "or newer), so the claim waits where there are none. With a pod for each GPU it needs no such device."
)
_NO_CEILING = (
    "{} percent of the compute is left out: only MPS holds a ceiling, and it holds a container to one GPU. Compute is "
    "shared as it comes."
)
_ELASTIC = "Only the driver's own limits know a limit above what is counted; the claim waits where there are none."
_CONFIG = {"apiVersion": "gpu-dra.dev/v1alpha1", "kind": "FractionConfig"}


def name_of(*parts: str) -> str:
    """A DNS label of ``parts``; what does not fit is told apart by a hash of all of them."""
    whole = "-".join(parts)
    label = re.sub("[^a-z0-9]+", "-", whole.lower()).strip("-") or "gpu"
    if len(label) <= _LONGEST_NAME and label == whole:
        return label
    digest = sha256("/".join(parts).encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{label[: _LONGEST_NAME - 9].rstrip('-')}-{digest}"


def template(
    name: str, namespace: str | None, asks: Sequence[Ask], alternatives: Sequence[Size]
) -> tuple[dict[str, Any], list[Note]]:
    """The template for one container, and its comments. Raises :class:`CannotConvertError`."""
    asks = [_that_can_be_held(ask) for ask in asks]
    if sum(ask.count for ask in asks) > MOST_DEVICES:
        message = f"a claim has at most {MOST_DEVICES} devices, not {sum(ask.count for ask in asks)}"
        raise CannotConvertError([Problem(asks[0].path, message, "ask for fewer, in several pods")])
    devices: dict[str, Any] = {"requests": [_request(ask, alternatives) for ask in asks]}
    constraints = [
        # The scheduler may give several fractions of one GPU to one claim (KEP-5075).
        {"requests": [ask.name], "distinctAttribute": f"{DRIVER}/uuid"}
        for ask in asks
        if ask.device_class == FRACTION and ask.count > 1
    ]
    if constraints:
        devices["constraints"] = constraints
    configured = [ask for ask in asks if _config(ask)]
    if configured:
        devices["config"] = [
            {"requests": [ask.name], "opaque": {"driver": DRIVER, "parameters": {**_CONFIG, **_config(ask)}}}
            for ask in configured
        ]
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    built = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {"spec": {"devices": devices}}}
    at: Path = ("spec", "spec", "devices")
    notes = [
        note
        for number, ask in enumerate(asks)
        for note in _notes(ask, (*at, "requests", number), devices["requests"][number], alternatives)
    ]
    notes += [
        Note((*at, "config", number, "opaque"), remark.text)
        for number, ask in enumerate(configured)
        for remark in ask.remarks
        if remark.about is Place.CONFIG
    ]
    return built, notes


def _that_can_be_held(ask: Ask) -> Ask:
    """``ask`` of devices whose fence can do it. MPS holds a container to the limits of one GPU, and knows one limit of
    memory; so a claim that asks for more waits where there is nothing else, and is not refused on a node for ever."""
    several = ask.count > 1 and (ask.memory is not None or ask.portion is not None)
    if ask.device_class != FRACTION or not (several or ask.memory_limit is not None):
        return ask
    remarks = list(ask.remarks)
    if several:
        remarks.append(Remark(Place.SELECTORS, _SEVERAL))
        if ask.compute:
            remarks = [each for each in remarks if each.about is not Place.COMPUTE]
            remarks.append(Remark(Place.REQUEST, _NO_CEILING.format(ask.compute)))
    else:
        remarks.append(Remark(Place.SELECTORS, _ELASTIC))
    return replace(
        ask,
        selectors=(*ask.selectors, _OWN_LIMITS),
        compute=0 if several else ask.compute,
        remarks=tuple(remarks),
    )


def _config(ask: Ask) -> Mapping[str, str]:
    found = {}
    if ask.memory_limit is not None:
        found["memoryLimit"] = str(Quantity.binary(ask.memory_limit))
    if ask.priority is not None:
        found["priority"] = ask.priority.value
    return found


def _request(ask: Ask, alternatives: Sequence[Size]) -> dict[str, Any]:
    if ask.portion is None:
        return {"name": ask.name, "exactly": _one(ask, ask.memory, ask.selectors)}
    if not alternatives:
        percent = f"{float(ask.portion * 100):g}%"
        message = f"{percent} of a GPU's memory has no meaning in DRA, where amounts are absolute"
        remedy = (
            "pass --gpu-memory SIZE (what the driver publishes of one, gpu-dra get slices -o yaml), or --product "
            "NAME=SIZE for each kind of GPU"
        )
        raise CannotConvertError([Problem(ask.path, message, remedy)])
    parts = [
        _one(ask, size.part(ask.portion), (*ask.selectors, *([size.selector] if size.selector else [])))
        for size in alternatives
    ]
    if len(parts) == 1:
        return {"name": ask.name, "exactly": parts[0]}
    return {
        "name": ask.name,
        "firstAvailable": [{"name": f"kind-{number}", **part} for number, part in enumerate(parts, start=1)],
    }


def _one(ask: Ask, memory: int | None, selectors: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"deviceClassName": ask.device_class}
    if selectors:
        found["selectors"] = [{"cel": {"expression": expression}} for expression in selectors]
    if ask.count > 1:
        found["count"] = ask.count
    amounts = {}
    if memory:
        amounts["memory"] = str(Quantity.binary(memory))
    if ask.compute:
        amounts["compute"] = str(ask.compute)
    if amounts:
        found["capacity"] = {"requests": amounts}
    return found


def _notes(ask: Ask, path: Path, request: Mapping[str, Any], alternatives: Sequence[Size]) -> Iterator[Note]:
    kinds: list[Path] = [(*path, "exactly")]
    if "firstAvailable" in request:
        kinds = [(*path, "firstAvailable", number) for number in range(len(alternatives))]
    places: dict[Place, Path] = {
        Place.REQUEST: path,
        Place.COUNT: (*kinds[0], "count"),
        Place.MEMORY: (*kinds[0], "capacity", "requests", "memory"),
        Place.COMPUTE: (*kinds[0], "capacity", "requests", "compute"),
        Place.SELECTORS: (*kinds[0], "selectors"),
    }
    for remark in ask.remarks:
        if remark.about is not Place.CONFIG:
            yield Note(places[remark.about], remark.text)
    if ask.memory and ask.memory % sizes.STEP:
        counted = Quantity.binary(-(-ask.memory // sizes.STEP) * sizes.STEP)
        text = f"Counted in steps, rounded up: {counted} with steps of {Quantity.binary(sizes.STEP)}."
        yield Note(places[Place.MEMORY], text)
    if ask.portion is not None:
        for kind, size in zip(kinds, alternatives, strict=True):
            text = f"{float(ask.portion * 100):g}% of {size}, rounded down to a step so that as many fit as before."
            yield Note((*kind, "capacity", "requests", "memory"), text)
