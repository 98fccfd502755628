"""Loading a DriverConfiguration: defaults < file < environment < flags; unknown keys are errors with their path.

The two mains share this::

    parser = argparse.ArgumentParser(...)
    add_arguments(parser, "plugin")
    flags = vars(parser.parse_args())
    config = load(config_file(os.environ, flags), os.environ, flags)
    who = identity("plugin", os.environ, flags)

The model is in ``driver_spec``, flags and variables are in ``settings``; both are re-exported here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from api import feature_gates, strict
from api.driver_spec import API_VERSION, KIND, DriverConfiguration, DriverSpec
from api.settings import SETTINGS, Identity, Process, Setting, add_arguments, config_file, identity
from api.strict import DecodeError, Problem

__all__ = [
    "API_VERSION",
    "KIND",
    "SETTINGS",
    "DriverConfiguration",
    "DriverSpec",
    "Identity",
    "Process",
    "Setting",
    "add_arguments",
    "config_file",
    "decode",
    "identity",
    "load",
]


def decode(data: object, *, path: str = "") -> DriverConfiguration:
    """A DriverConfiguration from JSON-shaped data. Raises :class:`DecodeError`."""
    return strict.decode(DriverConfiguration, data, path=path)


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> DriverConfiguration:
    """The configuration of this process. Raises :class:`DecodeError` naming file, variable or flag.

    ``flags`` is ``vars()`` of a parser that :func:`add_arguments` filled, or any part of it; None is a flag not given,
    and keys that are no setting are passed over. An empty environment variable counts as not set; an empty flag is
    a value. Feature gates are settings of their own: each layer changes only the gates it names.
    """
    base = _from_file(file) if file is not None else DriverConfiguration()
    data, origins = base.to_wire(), dict[str, str]()
    problems: list[Problem] = []
    for setting, source, text in _given(environ, flags):
        try:
            _put(data, setting, _value(setting, text))
        except ValueError as error:
            problems.append(Problem(source, text, str(error)))
        origins[setting.path] = source
    try:
        config = decode(data)
    except DecodeError as error:
        raise DecodeError([*problems, *(_from_origin(problem, origins) for problem in error.problems)]) from None
    if problems:
        raise DecodeError(problems)
    return config


def _given(environ: Mapping[str, str], flags: Mapping[str, Any]) -> Iterable[tuple[Setting, str, str]]:
    """What environment and flags say, in the order in which it is applied: setting, where from, text."""
    for setting in SETTINGS:
        if environ.get(setting.env):
            yield setting, setting.env, environ[setting.env]
        if flags.get(setting.dest) is not None:
            yield setting, setting.flag, str(flags[setting.dest])


def _value(setting: Setting, text: str) -> Any:
    """A flag's or variable's text as the wire value. ValueError says what it must be."""
    if setting.kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"must be true or false, not {strict.show(text)}")
        return text.lower() == "true"
    if setting.is_map:
        return feature_gates.parse(text)
    return text


def _put(data: dict[str, Any], setting: Setting, value: Any) -> None:
    """Sets a leaf; maps are merged."""
    *parents, leaf = setting.location
    for key in parents:
        data = data.setdefault(key, {})
    data[leaf] = {**data.get(leaf, {}), **value} if isinstance(value, dict) else value


def _from_origin(problem: Problem, origins: Mapping[str, str]) -> Problem:
    """The problem with the flag or variable that brought the value in place of the path that nobody wrote."""
    for path, source in origins.items():
        if problem.path == path or problem.path.startswith(path + "."):
            return dataclasses.replace(problem, path=source + problem.path.removeprefix(path))
    return problem


def _from_file(file: Path) -> DriverConfiguration:
    try:
        return decode(_read(file))
    except DecodeError as error:
        located = [dataclasses.replace(p, path=f"{file}: {p.path}" if p.path else str(file)) for p in error.problems]
        raise DecodeError(located) from None


def _read(file: Path) -> Any:
    """The file's data. JSON is read as YAML, which holds it."""
    from api import unique_yaml  # here: without a file, PyYAML is not needed

    try:
        data = unique_yaml.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DecodeError([Problem("", None, f"cannot be read: {error.strerror}")]) from None
    except unique_yaml.Error as error:
        raise DecodeError([Problem("", None, f"is not YAML: {unique_yaml.told(error)}")]) from None
    except (ValueError, RecursionError) as error:
        # Not UTF-8, a timestamp of no day, brackets without end.
        raise DecodeError([Problem("", None, f"is not YAML: {type(error).__name__}: {error}")]) from None
    missing = [key for key in ("apiVersion", "kind") if not isinstance(data, dict) or key not in data]
    if isinstance(data, dict) and missing:
        # The model has defaults for them, but a file without them may be anything.
        raise DecodeError([Problem(key, None, "required", f"set it to {_IDENTITY[key]}") for key in missing])
    return data


_IDENTITY = {"apiVersion": API_VERSION, "kind": KIND}
