"""The selector engine on cel-python: its interpreter, with the Kubernetes functions and our equality put in place.

Known bounds of cel-python that shape this module: the parser is a class-level singleton (one lock around parsing), an
Environment must not be shared by threads (one per thread), the interpreter has no cost limit (a step budget), has()
swallows every error (replaced), and an evaluation takes about a millisecond (results are remembered per values read).
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import celpy
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import Activation, CELEvalError, CELUnsupportedError, Evaluator

from dra_driver.allocator import cel_check, cel_functions, cel_values
from dra_driver.allocator.model import AttributeValue, Device
from dra_driver.allocator.selectors import MAX_EXPRESSION_BYTES, Program, SelectorError, SelectorErrorKind

_STEP_BUDGET = 20_000  # about a second; the API server's own limit is far below what such an expression costs
_PARSED_EXPRESSIONS = 512
_REMEMBERED_RESULTS = 1024  # per expression

_FUNCTIONS: dict[str, Any] = {
    **cel_functions.METHODS,
    **cel_functions.GLOBAL_FUNCTIONS,
    **cel_functions.OPERATORS,
}

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _BoundedCache(Generic[Key, Value]):
    """Least recently used entries fall out. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


class _BudgetError(Exception):
    """The expression did not end within its steps."""


class _Evaluator(Evaluator):
    """cel-python's interpreter with a step budget, and has() that only tests the last selection."""

    def __init__(self, ast: cel_check.Node, activation: Activation, budget: list[int]) -> None:
        super().__init__(ast, activation)
        self._budget = budget

    def sub_evaluator(self, ast: cel_check.Node) -> Evaluator:
        return _Evaluator(ast, self.activation, self._budget)

    def expr(self, tree: cel_check.Node) -> Any:
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise _BudgetError
        return super().expr(tree)

    def macro_has_eval(self, exprlist: cel_check.Node) -> Any:
        selection = cel_check.unwrap(cast(cel_check.Node, exprlist.children[0]))
        operand = self.visit(cast(cel_check.Node, selection.children[0]))
        if isinstance(operand, Exception):
            return operand
        if not isinstance(operand, celtypes.MapType):
            return CELEvalError(f"no such overload: has() on {cel_values.type_name(operand)}", TypeError, ())
        present = isinstance(operand, cel_values.DomainMap) or str(selection.children[1]) in operand
        return celtypes.BoolType(present)


class _Runner(celpy.InterpretedRunner):
    def evaluate(self, context: Any) -> Any:
        return _Evaluator(self.ast, self.new_activation(), [_STEP_BUDGET]).evaluate(context)


class _ThreadState(threading.local):
    """What cel-python wants for itself in every thread."""

    def __init__(self) -> None:
        self.runners: _BoundedCache[str, _Runner] = _BoundedCache(_PARSED_EXPRESSIONS)

    @cached_property
    def environment(self) -> celpy.Environment:
        """Made when it is first needed: the first in a process makes the parser, which takes a tenth of a second."""
        # Environment() sets the recursion limit of the whole process; never lower one that is in force.
        limit = sys.getrecursionlimit()
        environment = celpy.Environment(runner_class=_Runner)
        sys.setrecursionlimit(max(limit, sys.getrecursionlimit()))
        return environment


class CelProgram:
    """One compiled selector; results are remembered on the values that the expression reads."""

    def __init__(self, expression: str, tree: cel_check.Node, thread_state: _ThreadState) -> None:
        self._expression = expression
        self._tree = tree
        self._thread_state = thread_state
        self._references = tuple(sorted(cel_check.check(tree)))
        self._results: _BoundedCache[Hashable, bool | SelectorError] = _BoundedCache(_REMEMBERED_RESULTS)

    @property
    def expression(self) -> str:
        return self._expression

    @property
    def references(self) -> tuple[cel_check.Reference, ...]:
        """Paths into ``device`` that the expression reads; a superset where a step is computed."""
        return self._references

    def evaluate(self, device: Device) -> bool:
        key = tuple(_read(device, reference) for reference in self._references)
        result = self._results.get(key)
        if result is None:
            result = self._evaluate(device)
            self._results.put(key, result)
        if isinstance(result, SelectorError):
            raise SelectorError(result.kind, result.message, result.position)
        return result

    def _evaluate(self, device: Device) -> bool | SelectorError:
        try:
            value = self._runner().evaluate({"device": cel_values.device_value(device)})
        except CELEvalError as error:
            return SelectorError(SelectorErrorKind.RUNTIME, _describe(error))
        except CELUnsupportedError as error:
            return SelectorError(SelectorErrorKind.UNSUPPORTED, str(error))
        except _BudgetError:
            return SelectorError(SelectorErrorKind.LIMIT, f"the expression needs more than {_STEP_BUDGET} steps")
        except RecursionError:
            return SelectorError(SelectorErrorKind.LIMIT, "the expression is nested too deeply")
        except (TypeError, ValueError) as error:  # raised by macros over values that cannot be iterated or filtered
            return SelectorError(SelectorErrorKind.RUNTIME, str(error))
        if not isinstance(value, celtypes.BoolType):
            message = f"the expression gives {cel_values.type_name(value)}, not bool"
            return SelectorError(SelectorErrorKind.NOT_BOOL, message)
        return bool(value)

    def _runner(self) -> _Runner:
        runners = self._thread_state.runners
        runner = runners.get(self._expression)
        if runner is None:
            runner = cast(_Runner, self._thread_state.environment.program(self._tree, _FUNCTIONS))
            runners.put(self._expression, runner)
        return runner


class CelEngine:
    """A :class:`SelectorEngine`. One per process is enough; its caches are shared by all threads."""

    def __init__(self) -> None:
        self._thread_state = _ThreadState()
        self._parse_lock = threading.Lock()
        self._programs: _BoundedCache[str, CelProgram | SelectorError] = _BoundedCache(_PARSED_EXPRESSIONS)

    def compile(self, expression: str) -> Program:
        program = self._programs.get(expression)
        if program is None:
            program = self._compile(expression)
            self._programs.put(expression, program)
        if isinstance(program, SelectorError):
            raise SelectorError(program.kind, program.message, program.position)
        return program

    def _compile(self, expression: str) -> CelProgram | SelectorError:
        size = len(expression.encode())
        if size > MAX_EXPRESSION_BYTES:
            message = f"the expression has {size} bytes; at most {MAX_EXPRESSION_BYTES} are allowed"
            return SelectorError(SelectorErrorKind.LIMIT, message)
        try:
            with self._parse_lock:
                tree = cast(cel_check.Node, self._thread_state.environment.compile(expression))
            return CelProgram(expression, tree, self._thread_state)
        except CELParseError as error:
            return _syntax_error(expression, error)
        except RecursionError:
            return SelectorError(SelectorErrorKind.LIMIT, "the expression is nested too deeply")
        except SelectorError as error:
            return error


def _syntax_error(expression: str, error: CELParseError) -> SelectorError:
    feature = cel_check.missing_syntax(expression)
    if feature is not None:
        return cel_check.unsupported(feature)
    position = None
    if error.line and error.column:
        lines = expression.splitlines(keepends=True)
        position = sum(len(line) for line in lines[: error.line - 1]) + error.column - 1
    return SelectorError(SelectorErrorKind.SYNTAX, "syntax error", position)


def _describe(error: CELEvalError) -> str:
    """One sentence of what went wrong, without cel-python's dump of the whole activation."""
    cause = error.__cause__
    if isinstance(cause, ValueError) and cause.args:
        return str(cause.args[0])
    if isinstance(cause, KeyError) and cause.args:
        return f"no such key: {cause.args[0]}"
    text = str(error.args[0]) if error.args else "evaluation failed"
    return text.replace("no such member in mapping", "no such key").replace("'", "")


def _read(device: Device, reference: cel_check.Reference) -> Hashable:
    """The value at a reference, or everything below it, with types: in Python ``True == 1``."""
    if not reference:
        return tuple(_read(device, (name,)) for name in sorted(cel_values.DEVICE_FIELDS))
    name, rest = reference[0], reference[1:]
    if name == "driver":
        return device.id.driver
    if name == "allowMultipleAllocations":
        return device.allow_multiple_allocations
    domains: Any = device.attributes if name == "attributes" else device.capacity
    if not rest:
        return tuple((domain, _frozen_domain(domains[domain])) for domain in sorted(domains))
    values = domains.get(rest[0], {})
    return _frozen_domain(values) if len(rest) == 1 else _frozen(values.get(rest[1]))


def _frozen_domain(values: Any) -> Hashable:
    return tuple((name, _frozen(values[name])) for name in sorted(values))


def _frozen(value: AttributeValue | None) -> Hashable:
    if isinstance(value, tuple):
        return tuple(_frozen(entry) for entry in value)
    return type(value).__name__, value
