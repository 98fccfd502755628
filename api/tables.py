"""Markdown tables about our models, for the manual. Texts come from the fields' descriptions."""

from __future__ import annotations

import types
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from api import duration, shape
from api.feature_gates import FEATURE_GATES
from api.settings import CONFIG_ENV, CONFIG_FLAG, FILE_ONLY, IDENTITY, SETTINGS, Process, Setting


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; pipes in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def settings_table() -> str:
    """Every setting: path, default, flag, variable, process, meaning."""
    rows = [
        [f"`{s.path}`", _default(s), f"`{s.flag}`", f"`{s.env}`", s.process.value, _with_choices(s)] for s in SETTINGS
    ]
    return markdown(["Setting", "Default", "Flag", "Environment", "Used by", "Meaning"], rows)


def file_settings_table() -> str:
    """What only the file can hold: path, type, meaning; the fields of the objects in a list or map below it."""
    rows = []
    for leaf in FILE_ONLY:
        rows.append([f"`{leaf.path}`", _words(leaf.kind, text="text"), leaf.description])
        path, inside = leaf.path, leaf.kind
        while get_origin(inside) in (list, dict):
            path += "[]" if get_origin(inside) is list else ".NAME"
            inside = shape.core_type(get_args(inside)[-1])
        if shape.is_model(inside):
            rows += _field_rows(inside, f"{path}.", text="text")
    return markdown(["Setting", "Type", "Meaning"], rows)


def identity_table() -> str:
    """What is no setting: flags and variables that tell a process who it is and where its file lies."""
    rows = [
        [
            f"`{value.flag}`",
            f"`{value.env}`",
            value.process.value,
            f"required by the {value.required_by}" if value.required_by else _code(value.default),
            value.description,
        ]
        for value in IDENTITY
    ]
    rows.append(
        [f"`{CONFIG_FLAG}`", f"`{CONFIG_ENV}`", Process.ALL.value, "none", "DriverConfiguration file, YAML or JSON."]
    )
    return markdown(["Flag", "Environment", "Used by", "Default", "Meaning"], rows)


def gates_table() -> str:
    """Every feature gate and what this version does with it."""
    rows = [
        [f"`{gate.name}`", "on" if gate.default else "off", gate.state.value, gate.summary]
        for gate in FEATURE_GATES.values()
    ]
    return markdown(["Gate", "Default", "State", "Meaning"], rows)


def fields_table(model: type[BaseModel]) -> str:
    """Every field of a configuration kind, but for apiVersion and kind, nested ones by their path."""
    return markdown(["Field", "Type", "Meaning"], _field_rows(model, ""))


def _field_rows(model: type[BaseModel], prefix: str, *, text: str = "quantity") -> list[list[str]]:
    """``text`` is what a field of type str is called; in the configuration kinds of claims it is always a quantity."""
    rows = []
    for name, info in shape.fields_of(model).items():
        if not prefix and name in ("apiVersion", "kind"):
            continue
        kind = shape.core_type(info.annotation)
        needed = ", required" if info.is_required() else ""
        rows.append([f"`{prefix}{name}`", _words(kind, text=text) + needed, info.description or ""])
        if shape.is_model(kind):
            rows += _field_rows(kind, f"{prefix}{name}.", text=text)
    return rows


def _words(kind: Any, *, text: str) -> str:
    """A type as the reader of a manual calls it."""
    if shape.is_model(kind):
        return "object"
    if shape.choices(kind):
        return ", ".join(f"`{choice}`" for choice in shape.choices(kind))
    if shape.is_map(kind):
        return f"map to {_words(shape.core_type(get_args(kind)[1]), text=text)}"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_words(shape.core_type(one), text=text) for one in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_words(shape.core_type(get_args(kind)[0]), text=text)}"
    return {bool: "boolean", int: "integer", str: text}[kind]


def _with_choices(setting: Setting) -> str:
    choices = shape.choices(setting.kind)
    return f"{setting.description} One of {', '.join(choices)}." if choices else setting.description


def _default(setting: Setting) -> str:
    info = shape.fields_of(setting.parent)[setting.location[-1]]
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, bool):
        return _code("true" if value else "false")
    if isinstance(value, float):
        return _code(duration.render(value))
    if isinstance(value, Enum):
        return _code(str(value.value))
    return _code(str(value)) if isinstance(value, str | Path) else "none"


def _code(text: str) -> str:
    return f"`{text}`" if text else "none"
