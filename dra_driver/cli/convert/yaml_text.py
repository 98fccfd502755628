"""YAML in and out, so that what is not converted stays as it was written: numbers keep their digits, keys their order.

PyYAML reads YAML 1.1, Kubernetes (sigs.k8s.io/yaml) nearly so. Where the two differ on a plain scalar (1:20, a date,
1e3, y) it is read as Kubernetes does, and text that Kubernetes would take for something else is quoted.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Hashable, Iterable
from typing import Any, Self

import yaml

from api import unique_yaml
from dra_driver.cli.convert.model import Note, Path

MAX_DEPTH = 64
MAX_VALUES = 100_000  # an object of the API server is far smaller; aliases can make a page of text into billions
_WIDTH = 120
_NEVER_FOLD = 1_000_000

_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)"
)
_BOOL = re.compile(r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_YES = ("y", "yes", "true", "on")
_TAG = "tag:yaml.org,2002:"


class TooLargeError(Exception):
    """A document that has, with its aliases written out, more than anybody means."""


class _Int(int):
    """A whole number, and how it was written."""

    text: str

    @classmethod
    def written(cls, value: int, text: str) -> Self:
        number = cls(value)
        number.text = text
        return number


class _Float(float):
    text: str

    @classmethod
    def written(cls, value: float, text: str) -> Self:
        number = cls(value)
        number.text = text
        return number


class _Loader(unique_yaml.Loader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:  # merge keys in merge keys multiply
            raise TooLargeError

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                key.tag = f"{_TAG}str"  # as in JSON
        return super().construct_mapping(node, deep)

    def whole(self, node: yaml.ScalarNode) -> int:
        text = node.value.replace("0o", "0", 1)
        return _Int.written(self.construct_yaml_int(yaml.ScalarNode(node.tag, text)), node.value)

    def real(self, node: yaml.ScalarNode) -> float:
        return _Float.written(self.construct_yaml_float(node), node.value)

    def truth(self, node: yaml.ScalarNode) -> bool:
        return node.value.lower() in _YES


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.Node:
        # Line breaks that only YAML 1.1 knows are escaped: a line here is what ends with \\n.
        style = '"' if _OTHER_BREAKS.search(data) else "|" if "\n" in data else None
        return self.represent_scalar(f"{_TAG}str", data, style=style)

    def number(self, data: _Int | _Float) -> yaml.Node:
        return self.represent_scalar(_TAG + ("int" if isinstance(data, _Int) else "float"), data.text)


# A scalar with one of these is that type for Kubernetes; dates, 1:20 and = are text there.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag in (f"{_TAG}null", f"{_TAG}merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _cls in (_Loader, _Dumper):
    _cls.add_implicit_resolver(f"{_TAG}bool", re.compile(f"(?:{_BOOL.pattern})$"), list("yYnNtTfFoO"))
    _cls.add_implicit_resolver(f"{_TAG}int", re.compile(f"(?:{_INT.pattern})$"), list("-+0123456789"))
    _cls.add_implicit_resolver(f"{_TAG}float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+0123456789."))
_Loader.add_constructor(f"{_TAG}int", _Loader.whole)
_Loader.add_constructor(f"{_TAG}float", _Loader.real)
_Loader.add_constructor(f"{_TAG}bool", _Loader.truth)
_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(_Int, _Dumper.number)
_Dumper.add_representer(_Float, _Dumper.number)


def load(text: str) -> Any:
    """The data of one document, aliases written out: a tree without shared parts, which may be changed.

    Raises yaml.YAMLError, ValueError or RecursionError where PyYAML does, and :class:`TooLargeError`.
    """
    return _Copier().copy(yaml.load(text, Loader=_Loader), 0)  # noqa: S506  a SafeLoader


class _Copier:
    def __init__(self) -> None:
        self._values = 0

    def copy(self, data: Any, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise TooLargeError
        if isinstance(data, dict):
            return {key: self.copy(value, depth + 1) for key, value in data.items()}
        if isinstance(data, list):
            return [self.copy(value, depth + 1) for value in data]
        return data


def dump(data: Any, notes: Iterable[Note] = ()) -> str:
    """One document in block style, with a comment above the line of each note's path."""
    text = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=_NEVER_FOLD
    )
    notes = list(notes)
    return _commented(text, notes) if notes else text


def comment(text: str, indent: int = 0) -> list[str]:
    """``text`` as lines of a comment."""
    prefix = " " * indent + "# "
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)


def _commented(text: str, notes: Iterable[Note]) -> str:
    lines = text.removesuffix("\n").split("\n")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    above: dict[int, list[str]] = {}
    for note in notes:
        line = _line(root, note.path)
        found = above.setdefault(line, [])
        new = comment(note.text, len(lines[line]) - len(lines[line].lstrip(" ")))
        if not _holds(found, new):  # the same for several containers
            found += new
    return "".join(f"{line}\n" for at, content in enumerate(lines) for line in (*above.get(at, ()), content))


def _holds(lines: list[str], part: list[str]) -> bool:
    return any(lines[at : at + len(part)] == part for at in range(len(lines)))


def _line(node: yaml.Node | None, path: Path) -> int:
    """The line of what is at ``path``; of its nearest parent that is there, where it is not."""
    line = 0
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == key]
            if not found:
                return line
            line, node = found[0][0].start_mark.line, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line
        else:
            return line
    return line
