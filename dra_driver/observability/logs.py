"""Log lines: text for people, JSON for machines, each with the operation they belong to.

An operation is one piece of work (a reconcile, a gRPC call). Its id sits in a context variable, so that code far below
logs it without knowing of it. A new thread starts without one. :func:`setup` is called once, by ``main``.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

_operation: ContextVar[str] = ContextVar("operation", default="")

# What every LogRecord has; anything else came from extra={...}.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "operation"}


def current_operation() -> str:
    """The id of the operation this thread works on, or an empty string."""
    return _operation.get()


@contextmanager
def operation(identifier: str = "") -> Iterator[str]:
    """Lines logged inside carry ``identifier`` (a random one when empty). Operations nest; the inner one wins."""
    identifier = identifier or secrets.token_hex(4)
    token = _operation.set(identifier)
    try:
        yield identifier
    finally:
        _operation.reset(token)


class OperationFilter(logging.Filter):
    """Adds ``record.operation``. On the handler, so that records of every logger pass it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.operation = _operation.get()
        return True


class TextFormatter(logging.Formatter):
    """``2026-11-23T08:03:30.123Z INFO controller.publisher [3f2a] wrote slice node=n1``."""

    def format(self, record: logging.LogRecord) -> str:
        operation_id = getattr(record, "operation", "")
        mark = f" [{operation_id}]" if operation_id else ""
        fields = "".join(f" {key}={_plain(value)}" for key, value in _extra(record).items())
        line = f"{_timestamp(record)} {record.levelname} {record.name}{mark} {record.getMessage()}{fields}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, operation and the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        operation_id = getattr(record, "operation", "")
        if operation_id:
            line["operation"] = operation_id
        for key, value in _extra(record).items():
            line.setdefault(key, value)
        trace = _trace(self, record)
        if trace:
            line["trace"] = trace
        return json.dumps(line, default=str, ensure_ascii=False)


_FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def setup(level: str = "info", log_format: str = "text", stream: TextIO | None = None) -> None:
    """Send all logging to ``stream`` (standard error by default). Replaces what an earlier call set up.

    ``log_format`` is text or json. Raises ValueError for an unknown level or format.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r} is not one of DEBUG, INFO, WARNING, ERROR")
    formatter = _FORMATTERS.get(log_format.lower())
    if formatter is None:
        raise ValueError(f"log format {log_format!r} is not one of {', '.join(_FORMATTERS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter())
    handler.addFilter(OperationFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    # urllib3 logs every connection and request at DEBUG; our own adapter says what matters.
    logging.getLogger("urllib3").setLevel(max(number, logging.WARNING))


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c.isspace() or c in '"=' for c in text) else text


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)
