"""``--query-gpu`` and ``--query-compute-apps`` on a node, and the list of fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TextIO, TypeVar

from dra_driver.hardware.nvml import Reading
from dra_driver.simulation.hardware.smi.fields import (
    APP_FIELDS,
    GPU_FIELDS,
    NOT_AVAILABLE,
    with_unit,
)
from dra_driver.simulation.hardware.smi.options import NoSuchField, NotUnderstood, Options
from dra_driver.simulation.hardware.smi.show import shown

GPU_OPTION = "--query-gpu"
APP_OPTION = "--query-compute-apps"
HELP_OPTION = "--help-query-gpu"

_FORMAT = "--format"


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    @property
    def heading(self) -> str: ...
    @property
    def unit(self) -> str: ...


_FieldT = TypeVar("_FieldT", bound=_Named)


def query_gpus(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    options = Options.parse(words, values=("-i", GPU_OPTION, _FORMAT))
    fields, form = _fields(options.given[GPU_OPTION], GPU_FIELDS), _form(options)
    rows = [[texts[field.name] for field in fields] for _, texts in shown(options, reading)]
    _write(fields, rows, form, out)
    return 0


def query_apps(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    options = Options.parse(words, values=("-i", APP_OPTION, _FORMAT))
    fields, form = _fields(options.given[APP_OPTION], APP_FIELDS), _form(options)
    rows = [
        [with_unit(field.value(gpu, process), field.unit) for field in fields]
        for gpu, _ in shown(options, reading)
        for process in gpu.processes
    ]
    _write(fields, rows, form, out)
    return 0


def list_fields(words: Sequence[str], _reading: Reading, out: TextIO, _err: TextIO) -> int:
    Options.parse(words, values=(), flags=(HELP_OPTION,))
    out.write(f'List of valid properties to query for the switch "{GPU_OPTION}":\n\n')
    for field in GPU_FIELDS:
        names = " or ".join(f'"{name}"' for name in (field.name, *field.aliases))
        out.write(f"{names}\n{field.help}\n\n")
    return 0


def _fields(names: str, known: Iterable[_FieldT]) -> list[_FieldT]:
    by_name = {name: field for field in known for name in (field.name, *field.aliases)}
    found = []
    for name in (each.strip() for each in names.split(",")):
        if name not in by_name:
            raise NoSuchField(f'Field "{name}" is not a valid field to query.')
        found.append(by_name[name])
    return found


def _form(options: Options) -> frozenset[str]:
    form = frozenset(each.strip() for each in options.given.get(_FORMAT, "").split(","))
    if "csv" not in form or form - {"csv", "noheader", "nounits"}:
        raise NotUnderstood("a query needs --format=csv, with noheader and nounits if wanted: --format=csv,noheader")
    return form


def _write(fields: Sequence[_Named], rows: Iterable[Sequence[str]], form: frozenset[str], out: TextIO) -> None:
    if "noheader" not in form:
        out.write(", ".join(field.heading for field in fields) + "\n")
    for row in rows:
        texts = zip(fields, row, strict=True)
        out.write(", ".join(_written(field, text, form) for field, text in texts) + "\n")


def _written(field: _Named, text: str, form: frozenset[str]) -> str:
    if text == NOT_AVAILABLE:
        return f"[{NOT_AVAILABLE}]"
    return text.removesuffix(f" {field.unit}") if field.unit and "nounits" in form else text
