"""Which requests to the Kubernetes API the code of a process makes, read from its source.

Every call of a ``KubeApi`` method names its resource by a constant of ``dra_driver.kube.interface``, and reflectors are
made with one; a call that does not is an error here, so that nothing is overlooked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from dra_driver.kube import interface
from dra_driver.kube.interface import Resource
from tests.deploy.helm import ROOT

VERBS = frozenset({"get", "list", "watch", "create", "update", "patch", "delete"})
# What an object must be called to be taken for the API; the code has no other names for it.
_API_NAMES = frozenset({"api", "_api", "reader"})

Request = tuple[str, str, str]  # group, resource with subresource, verb


class UnknownRequestError(Exception):
    """A call whose resource cannot be seen."""


def requests_of(*paths: str) -> frozenset[Request]:
    """The requests that the modules at ``paths`` (files or folders below the repository) make."""
    return frozenset(
        request for path in paths for file in _files(ROOT / path) for request in _in_module(file, file.read_text())
    )


def _files(path: Path) -> Iterator[Path]:
    yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _in_module(file: Path, source: str) -> Iterator[Request]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "Reflector":
            resource = _resource(file, node, node.args[1])
            yield from ((resource.group, resource.plural, verb) for verb in ("list", "watch"))
        elif isinstance(node.func, ast.Attribute) and node.func.attr in VERBS and _is_api(node.func.value):
            resource = _resource(file, node, node.args[0])
            yield resource.group, resource.plural + _subresource(file, node), node.func.attr


def _is_api(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in _API_NAMES


def _resource(file: Path, call: ast.Call, argument: ast.expr) -> Resource:
    found = getattr(interface, argument.id, None) if isinstance(argument, ast.Name) else None
    if not isinstance(found, Resource):
        raise UnknownRequestError(f"{file}:{call.lineno}: the resource is not a constant: {ast.unparse(call)}")
    return found


def _subresource(file: Path, call: ast.Call) -> str:
    for keyword in call.keywords:
        if keyword.arg == "subresource":
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if not isinstance(value, str):
                raise UnknownRequestError(f"{file}:{call.lineno}: the subresource is not a constant")
            return f"/{value}"
    return ""
