"""The form of protocol 3: ``module verb [positional...] [--key=value...] [--flag...]``, and the lists it prints. Pure.

From NVIDIA's MPS documentation, MPS v3 Interface: at most three positional words, ``--key=value`` or ``key=value``,
flags without a value, names of lower case letters, digits and underscores up to 64, sizes as 4G, 512M or 1024K, lists
as a table or as CSV with or without a heading. How a list prints what is not set, and several devices in one CSV field,
the pages do not say: "-", and a field in quotes, are ours. So are the words of refusals.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dra_driver.simulation.hardware.mps.values import Invalid

UNSET = "-"
FLAGS = ("force", "all")

_NAME = re.compile(r"[a-z0-9_]{1,64}")
_OPTION = re.compile(r"(?:--)?([a-z][a-z-]*)=(.*)")
_MEMORY = re.compile(r"([1-9][0-9]*)([GMK])")
_FACTORS = {"G": 2**30, "M": 2**20, "K": 2**10}
_MOST_POSITIONAL = 3


@dataclass(frozen=True, slots=True)
class Words:
    """One command as it was written."""

    module: str
    verb: str
    positional: tuple[str, ...]
    options: Mapping[str, str]
    flags: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.module} {self.verb}".strip()


def parse(text: str) -> Words:
    module, verb, *rest = [*text.split(), "", ""][: max(2, len(text.split()))]
    positional, options, flags = [], {}, set()
    for word in rest:
        if match := _OPTION.fullmatch(word):
            options[match[1]] = match[2]
        elif word.startswith("--") and word[2:] in FLAGS:
            flags.add(word[2:])
        elif word.startswith("-"):
            raise Invalid(f"Unknown option {word}")
        else:
            positional.append(word)
    if len(positional) > _MOST_POSITIONAL:
        raise Invalid(f"{module} {verb}: at most {_MOST_POSITIONAL} positional arguments")
    return Words(module, verb, tuple(positional), options, frozenset(flags))


def name(text: str, of: str) -> str:
    if not _NAME.fullmatch(text):
        raise Invalid(f"Invalid {of} name {text!r}: lower case letters, digits and underscores, at most 64")
    return text


def memory(text: str) -> int:
    """In bytes."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise Invalid(f"Invalid memory limit {text}: a whole number followed by G, M or K")
    return int(match[1]) * _FACTORS[match[2]]


def memory_text(size: int | None) -> str:
    if size is None:
        return UNSET
    unit = next(each for each in "GMK" if size % _FACTORS[each] == 0)
    return f"{size // _FACTORS[unit]}{unit}"


def percentage(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 100:
        raise Invalid(f"Invalid active thread percentage {text}: 1 to 100")
    return value


def percentage_text(value: float | None) -> str:
    return UNSET if value is None else f"{value:.2f}"


def priority(text: str) -> int:
    if text not in ("0", "1"):
        raise Invalid(f"Invalid client priority {text}: 0 (normal) or 1 (below normal)")
    return int(text)


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> tuple[str, ...]:
    """``form``: of ``--format``."""
    kind, _, heading = form.partition(",")
    if kind not in ("table", "csv") or heading not in ("", "noheader"):
        raise Invalid(f"Invalid format {form}: table or csv, and ,noheader")
    shown = [] if heading else [columns if kind == "csv" else [each.upper().replace("-", " ") for each in columns]]
    lines = [*shown, *rows]
    if kind == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return tuple(out.getvalue().splitlines())
    widths = [max((len(line[at]) for line in lines), default=0) for at in range(len(columns))]
    return tuple("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
