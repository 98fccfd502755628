"""Looks at a parsed selector before it runs: unknown names, features this engine lacks, and what of a device it reads.

cel-python checks nothing at compile time: a misspelt function would surface as a run-time error on some devices only.
The API server refuses such expressions on write, so they are refused here too, with a position.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lark import Token, Tree

from dra_driver.allocator import cel_functions as functions
from dra_driver.allocator.cel_values import DEVICE_FIELDS
from dra_driver.allocator.selectors import SelectorError, SelectorErrorKind

Node = Tree[Token]

_TYPE_NAMES = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "timestamp", "duration"}
)
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_TRANSPARENT = frozenset(
    {"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member", "primary",
     "paren_expr"}
)  # fmt: skip
_STRINGS = re.compile(r"""[rR]?("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")
_MISSING_SYNTAX = (
    (re.compile(r"\.\?"), "optional field selection (.?)"),
    (re.compile(r"\[\?"), "optional indexing ([?])"),
    (re.compile(r"`"), "backtick field names"),
)

# A path into ``device``: ("attributes", "gpu.nvidia.com", "type"); a shorter one reads everything below it.
Reference = tuple[str, ...]


@dataclass(slots=True)
class _Findings:
    references: set[Reference] = field(default_factory=set)


def check(tree: Node) -> frozenset[Reference]:
    """What the expression reads of the device. Raises :class:`SelectorError` (UNDECLARED, UNSUPPORTED)."""
    findings = _Findings()
    _visit(tree, frozenset(), findings)
    return frozenset(findings.references)


def missing_syntax(expression: str) -> str | None:
    """The syntax that made the parser fail though a cluster accepts it, or None."""
    code = _STRINGS.sub("''", expression)
    return next((feature for pattern, feature in _MISSING_SYNTAX if pattern.search(code)), None)


def unsupported(feature: str, token: Token | None = None) -> SelectorError:
    message = f"{feature} is valid in Kubernetes, but this selector engine does not have it"
    return SelectorError(SelectorErrorKind.UNSUPPORTED, message, token.start_pos if token is not None else None)


def _undeclared(message: str, token: Token) -> SelectorError:
    return SelectorError(SelectorErrorKind.UNDECLARED, message, token.start_pos)


def _visit(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    if node.data in ("member_dot", "member_index"):
        path = _device_path(node, scope)
        if path is not None:
            findings.references.add(path[:3])
            _visit_indexes(node, scope, findings)
            return
    handler = _HANDLERS.get(str(node.data))
    if handler is not None:
        handler(node, scope, findings)
    else:
        _visit_children(node, scope, findings)


def _visit_children(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    for child in node.children:
        if isinstance(child, Tree):
            _visit(child, scope, findings)


def _visit_indexes(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    """Index expressions inside a path read things too: ``device.attributes[device.driver]``."""
    while isinstance(node, Tree):
        if node.data == "member_index":
            _visit(_tree(node.children[1]), scope, findings)
        if not isinstance(node.children[0], Tree):
            return
        node = node.children[0]


def _visit_ident(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    name = _token(node.children[0])
    if name in scope or name in _TYPE_NAMES:
        return
    if name != "device":
        raise _undeclared(f"undeclared reference to {str(name)!r}; a selector knows the variable device", name)
    findings.references.add(())


def _visit_call(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    name = _token(node.children[0])
    arguments = _arguments(node, 1)
    if name == "has":
        if len(arguments) != 1 or unwrap(arguments[0]).data != "member_dot":
            raise _undeclared("has() takes one field selection, as in has(device.attributes['d'].x)", name)
    elif name in functions.UNSUPPORTED_FUNCTIONS:
        raise unsupported(f"function {name}()", name)
    elif name not in functions.GLOBAL_FUNCTIONS and name not in functions.BUILT_IN_FUNCTIONS:
        raise _undeclared(f"undeclared reference to function {str(name)!r}", name)
    _visit_children(node, scope, findings)


def _visit_method(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    receiver, name = _tree(node.children[0]), _token(node.children[1])
    arguments = _arguments(node, 2)
    namespace = unwrap(receiver)
    if namespace.data == "ident" and str(namespace.children[0]) in functions.UNSUPPORTED_NAMESPACES - scope:
        raise unsupported(f"{namespace.children[0]}.{name}()", name)
    if name in _MACROS:
        _visit(receiver, scope, findings)
        _visit_macro(name, arguments, scope, findings)
        return
    if name in functions.UNSUPPORTED_METHODS:
        raise unsupported(f"function {name}()", name)
    if name not in functions.METHODS and name not in functions.BUILT_IN_METHODS:
        raise _undeclared(f"undeclared reference to function {str(name)!r}", name)
    _visit_children(node, scope, findings)


def _visit_macro(name: Token, arguments: list[Node], scope: frozenset[str], findings: _Findings) -> None:
    if len(arguments) == 3:
        form = "the three-argument form of map()" if name == "map" else f"the two-variable form of {name}()"
        raise unsupported(form, name)
    variable = unwrap(arguments[0]) if len(arguments) == 2 else None
    if variable is None or variable.data != "ident":
        raise _undeclared(f"{name}() takes a variable name and an expression", name)
    _visit(arguments[1], scope | {str(variable.children[0])}, findings)


def _refuse_object(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    raise SelectorError(SelectorErrorKind.UNDECLARED, "a selector cannot construct messages")


def _refuse_leading_dot(node: Node, scope: frozenset[str], findings: _Findings) -> None:
    raise unsupported("a name with a leading dot", _token(node.children[0]))


_HANDLERS = {
    "ident": _visit_ident,
    "ident_arg": _visit_call,
    "member_dot_arg": _visit_method,
    "member_object": _refuse_object,
    "dot_ident": _refuse_leading_dot,
    "dot_ident_arg": _refuse_leading_dot,
}


def _device_path(node: Node, scope: frozenset[str]) -> Reference | None:
    """The constant path of a chain that starts at ``device``, cut at the first computed step; None for other chains."""
    node = unwrap(node)
    if node.data == "ident":
        return () if node.children[0] == "device" and "device" not in scope else None
    if node.data not in ("member_dot", "member_index"):
        return None
    base_node = _tree(node.children[0])
    base = _device_path(base_node, scope)
    if base is None:
        return None
    if node.data == "member_dot":
        name = _token(node.children[1])
        if base == () and unwrap(base_node).data == "ident" and name not in DEVICE_FIELDS:
            raise _undeclared(f"undefined field {str(name)!r}; a device has {', '.join(sorted(DEVICE_FIELDS))}", name)
        return (*base, str(name)) if len(base) == _depth(base_node) else base
    if base == ():
        raise SelectorError(SelectorErrorKind.UNDECLARED, "device is not a map; use device.attributes['domain'].name")
    key = _string_literal(_tree(node.children[1]))
    return (*base, key) if key is not None and len(base) == _depth(base_node) else base


def _depth(node: Node) -> int:
    """How many steps a chain has; a path shorter than its chain was cut."""
    node = unwrap(node)
    return 0 if node.data == "ident" else 1 + _depth(_tree(node.children[0]))


def _string_literal(node: Node) -> str | None:
    node = unwrap(node)
    if node.data != "literal":
        return None
    token = _token(node.children[0])
    text = str(token)
    if token.type != "STRING_LIT" or "\\" in text or text[0] in "rR":
        return None
    return text[1:-1]


def unwrap(node: Node) -> Node:
    """Below the grammar's pass-through levels and parentheses."""
    while node.data in _TRANSPARENT and len(node.children) == 1 and isinstance(node.children[0], Tree):
        node = node.children[0]
    return node


def _arguments(node: Node, position: int) -> list[Node]:
    if len(node.children) <= position:
        return []
    return [_tree(child) for child in _tree(node.children[position]).children]


def _tree(child: Node | Token) -> Node:
    if not isinstance(child, Tree):
        raise TypeError(f"cel-python's grammar changed: {child!r} is not a node")
    return child


def _token(child: Node | Token) -> Token:
    if not isinstance(child, Token):
        raise TypeError(f"cel-python's grammar changed: {child!r} is not a token")
    return child
