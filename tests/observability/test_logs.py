from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from dra_driver.observability.logs import current_operation, operation, setup


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_hold_operation_extra_fields_and_trace() -> None:
    stream = io.StringIO()
    setup("debug", "json", stream)
    with operation("op1"):
        logging.getLogger("a.b").info("wrote %s", "slice", extra={"node": "n1", "count": 2})
    try:
        int("broken")
    except ValueError:
        logging.getLogger("a.b").exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "wrote slice"
    assert (first["level"], first["logger"], first["operation"]) == ("INFO", "a.b", "op1")
    assert (first["node"], first["count"]) == ("n1", 2)
    assert first["time"].endswith("Z")
    assert "operation" not in second
    assert "ValueError: invalid literal" in second["trace"]


def test_text_line_shows_operation_and_quotes_values_with_spaces() -> None:
    stream = io.StringIO()
    setup("INFO", "text", stream)
    logging.getLogger("a").debug("hidden")
    with operation("op2"):
        logging.getLogger("a").warning("careful", extra={"why": "two words", "n": 1})
    line = stream.getvalue().strip()
    assert line.endswith('WARNING a [op2] careful why="two words" n=1')
    assert "hidden" not in line


def test_operations_nest_end_and_do_not_leak_into_other_threads() -> None:
    seen: list[str] = []
    with operation("outer"):
        with operation() as inner:
            assert current_operation() == inner
            assert inner != "outer"
        assert current_operation() == "outer"
        thread = threading.Thread(target=lambda: seen.append(current_operation()))
        thread.start()
        thread.join()
    assert current_operation() == ""
    assert seen == [""]


def test_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup("INFO", "text", first)
    setup("INFO", "text", second)
    logging.getLogger("a").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.parametrize(("level", "log_format"), [("LOUD", "text"), ("INFO", "xml")])
def test_unknown_level_or_format_is_refused(level: str, log_format: str) -> None:
    with pytest.raises(ValueError):
        setup(level, log_format)
