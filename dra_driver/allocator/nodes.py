"""Node selectors (core/v1 NodeSelector) against a node, for slices that name their nodes by selector and for pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dra_driver.allocator.model import NodeScope, Obj


@dataclass(frozen=True, slots=True)
class Node:
    """What allocation needs of a node."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, node: Obj) -> Node:
        return cls(node["metadata"]["name"], dict(node["metadata"].get("labels") or {}))


def in_scope(scope: NodeScope, node: Node) -> bool:
    if scope.node_name is not None:
        return scope.node_name == node.name
    return scope.selector is None or matches_selector(scope.selector, node)


def matches_selector(selector: Obj, node: Node) -> bool:
    """Terms are or-ed, requirements inside a term and-ed; a term without requirements matches nothing."""
    return any(_term_matches(term, node) for term in selector.get("nodeSelectorTerms") or ())


def _term_matches(term: Obj, node: Node) -> bool:
    expressions: Sequence[Obj] = term.get("matchExpressions") or ()
    fields: Sequence[Obj] = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    on_labels = all(_requirement_holds(entry, node.labels) for entry in expressions)
    return on_labels and all(_requirement_holds(entry, {"metadata.name": node.name}) for entry in fields)


def _requirement_holds(requirement: Obj, values: Mapping[str, str]) -> bool:
    actual = values.get(requirement["key"])
    wanted = [str(value) for value in requirement.get("values") or ()]
    return _OPERATORS[requirement["operator"]](actual, wanted)


def _compare(actual: str | None, wanted: Sequence[str], holds: Callable[[int, int], bool]) -> bool:
    try:
        return actual is not None and len(wanted) == 1 and holds(int(actual), int(wanted[0]))
    except ValueError:
        return False


_OPERATORS: dict[str, Callable[[str | None, Sequence[str]], bool]] = {
    "In": lambda actual, wanted: actual is not None and actual in wanted,
    "NotIn": lambda actual, wanted: actual is None or actual not in wanted,
    "Exists": lambda actual, wanted: actual is not None,
    "DoesNotExist": lambda actual, wanted: actual is None,
    "Gt": lambda actual, wanted: _compare(actual, wanted, lambda a, b: a > b),
    "Lt": lambda actual, wanted: _compare(actual, wanted, lambda a, b: a < b),
}
