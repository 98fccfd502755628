"""CEL expressions of device selectors, over the attributes and capacities that the driver publishes.

An attribute that a device does not have is an error that ends the scheduling of the pod, so each is guarded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from dra_driver.cli.convert.model import DRIVER, MIG, SHARED_MIG

_ATTRIBUTES: Final = f'device.attributes["{DRIVER}"]'
_AND: Final = " &&\n"
_MEMORY: Final = f'device.capacity["{DRIVER}"].memory'


def of_products(texts: Iterable[str]) -> str:
    """Product names that contain one of ``texts``, whatever the case."""
    return _guarded("productName", _any_of(texts))


def not_of_products(texts: Iterable[str]) -> str:
    return _guarded("productName", f"!{_any_of(texts)}")


def of_uuids(uuids: Iterable[str], device_class: str) -> str:
    name = _uuid_attribute(device_class)
    return _guarded(name, f"{_ATTRIBUTES}.{name} in {_list(uuids)}")


def not_of_uuids(uuids: Iterable[str], device_class: str) -> str:
    name = _uuid_attribute(device_class)
    return _guarded(name, f"!({_ATTRIBUTES}.{name} in {_list(uuids)})")


def of_profile(profile: str) -> str:
    return _guarded("profile", f'{_ATTRIBUTES}.profile == "{profile}"')


def memory_from(least: str) -> str:
    """At least ``least`` (a quantity) of memory."""
    return _has_memory(f'{_MEMORY}.compareTo(quantity("{least}")) >= 0')


def memory_between(more_than: str | None, most: str | None) -> str:
    """More than the one and at most the other quantity, where they are given."""
    bounds = [(more_than, ">"), (most, "<=")]
    return _has_memory(_AND.join(f'{_MEMORY}.compareTo(quantity("{size}")) {how} 0' for size, how in bounds if size))


def _has_memory(rest: str) -> str:
    return f'"memory" in device.capacity["{DRIVER}"]{_AND}{rest}'


def _guarded(attribute: str, rest: str) -> str:
    return f'"{attribute}" in {_ATTRIBUTES}{_AND}{rest}'


def _uuid_attribute(device_class: str) -> str:
    """MIG devices are told by their GPU's: a dynamic one has no UUID before it is made."""
    return "parentUUID" if device_class in (MIG, SHARED_MIG) else "uuid"


def _any_of(texts: Iterable[str]) -> str:
    lower = _list(text.lower() for text in texts)
    return f"{lower}.exists(name, {_ATTRIBUTES}.productName.lowerAscii().contains(name))"


def _list(texts: Iterable[str]) -> str:
    return json.dumps(list(texts))
