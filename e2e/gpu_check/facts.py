"""Facts: what one side of the comparison answered, as text by name, so that two sides can be compared one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml import NvmlCallError, binding
from dra_driver.hardware.nvml.codes import Return, code_name

Facts = dict[str, str]

NOT_THERE = "-"  # what a side says of a fact that only the other one has

_UUID = re.compile(r"\b(GPU|MIG)-([0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


class NotHere(Exception):  # an outcome of a check, not an error
    """This machine has nothing on which the check could be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``here`` is the hardware's word; ``there`` that of ``whose``."""

    what: str
    here: str
    there: str
    whose: str = "simulation"


def compare(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[Difference, ...]:
    """Every fact that is not the same, in the hardware's order; last what only the simulation has."""
    names = [*here, *(name for name in there if name not in here)]
    both = ((name, here.get(name, NOT_THERE), there.get(name, NOT_THERE)) for name in names)
    return tuple(Difference(name, mine, other) for name, mine, other in both if mine != other)


def without_uuids(text: str) -> str:
    """UUIDs differ between any two machines; what is left is that there was one, of the right form."""
    return _UUID.sub(r"\1-UUID", text)


def shortened(text: str) -> str:
    """``GPU-1234...``: enough to tell the GPUs of one machine apart, and not to recognise somebody's board."""
    return _UUID.sub(r"\1-\2...", text)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A frozen value's fields by their path: ``gpus[0].mig.profiles[1g.10gb].memory_mib``."""
    if is_dataclass(value):
        for each in fields(value):
            yield from flat(getattr(value, each.name), f"{name}.{each.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from flat(each, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for position, each in enumerate(value):
            # Profiles by name: one that the other side lacks must not shift those after it.
            label = each.get("name") if isinstance(each, Mapping) else getattr(each, "name", None)
            yield from flat(each, f"{name}[{position if label is None else label}]")
        yield f"{name}, count", str(len(value))
    else:
        yield name, without_uuids(str(value))


def code_of(function: str, *arguments: Any) -> str:
    """How NVML answers a call: ``NVML_SUCCESS``, or the name of its error."""
    return value_of(function, *arguments, say=lambda _answer: code_name(Return.SUCCESS))


def value_of(function: str, *arguments: Any, say: Any = str) -> str:
    """What NVML answers, in ``say``'s words, or the name of its error."""
    try:
        return str(say(binding.call(function, *arguments)))
    except NvmlCallError as error:
        return code_name(error.code)
    except HardwareError as error:
        return error.message.removeprefix(f"{function} failed: ")
    except Exception as error:  # noqa: BLE001  # pynvml stumbles over an answer: that is what we want to know
        return f"pynvml raises {type(error).__name__}: {error}"
