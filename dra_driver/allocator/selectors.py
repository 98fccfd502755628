"""The seam to the CEL engine: compile a selector once, evaluate it on devices. Nothing outside an engine imports CEL.

A selector is the ``cel.expression`` of a DeviceClass or a request (resource.k8s.io/v1 CELDeviceSelector). In the real
scheduler an error at run time aborts the scheduling of the pod, so an engine never turns an error into false.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from dra_driver.allocator.model import Device

MAX_EXPRESSION_BYTES = 10 * 1024  # resource.k8s.io CELSelectorExpressionMaxLength


class SelectorErrorKind(StrEnum):
    SYNTAX = "Syntax"  # the API server would refuse it: not CEL
    UNDECLARED = "Undeclared"  # the API server would refuse it: an unknown name, field or function
    UNSUPPORTED = "Unsupported"  # valid for a cluster, but this engine lacks the feature
    LIMIT = "Limit"  # too long, nested too deeply or too expensive
    RUNTIME = "Runtime"  # evaluation failed, such as an attribute that the device does not carry
    NOT_BOOL = "NotBool"  # the result is not a bool


class SelectorError(Exception):
    """``position`` is the offset in the expression, where one is known."""

    def __init__(self, kind: SelectorErrorKind, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.position = position

    def __str__(self) -> str:
        where = "" if self.position is None else f" at character {self.position + 1}"
        return f"{self.message}{where}"


class Program(Protocol):
    """A compiled selector. Safe to use from several threads."""

    @property
    def expression(self) -> str: ...

    def evaluate(self, device: Device) -> bool:
        """Whether the device matches. Raises :class:`SelectorError` (RUNTIME, NOT_BOOL, LIMIT)."""
        ...


class SelectorEngine(Protocol):
    def compile(self, expression: str) -> Program:
        """Raises :class:`SelectorError` (SYNTAX, UNDECLARED, UNSUPPORTED, LIMIT)."""
        ...
