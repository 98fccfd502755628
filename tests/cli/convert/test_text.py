"""YAML in and out: what is written as it was, and what is read as Kubernetes reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dra_driver.cli.convert import yaml_text
from dra_driver.cli.convert.documents import Document, Source, join, split
from dra_driver.cli.convert.model import Note
from tests.cli.convert.cases import converted
from tests.cli.convert.objects import pod

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = sorted((ROOT / "deploy").rglob("*.yaml"))
WITHOUT_TEMPLATES = [path for path in MANIFESTS if "templates" not in path.parts]


@pytest.mark.parametrize(
    "written",
    [
        "1e3",
        "'1e3'",
        "0644",
        "'0644'",
        "0o17",
        "1_000",
        "0x1F",
        "1.50",
        ".5",
        "-.inf",
        "'y'",
        "'on'",
        "true",
        "'22:22'",
    ],
)
def test_a_scalar_stays_as_it_was_written(written: str) -> None:
    assert yaml_text.dump(yaml_text.load(f"a: {written}\n")) == f"a: {written}\n"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("22:22", "22:22"),
        ("2026-01-02", "2026-01-02"),
        ("=", "="),
        ("1e3", 1000.0),
        ("0o17", 15),
        ("y", True),
        ("off", False),
        ("~", None),
        ("'n'", "n"),
    ],
)
def test_a_scalar_is_what_kubernetes_takes_it_for(written: str, meant: object) -> None:
    assert yaml_text.load(f"a: {written}") == {"a": meant}


def test_keys_are_text() -> None:
    assert yaml_text.load("{1: a, on: b, null: c, 2026-01-02: d}") == {
        "1": "a",
        "on": "b",
        "null": "c",
        "2026-01-02": "d",
    }


def test_aliases_are_written_out_and_apart() -> None:
    data = yaml_text.load("a: &x {p: [1]}\nb: *x\nc: {<<: *x, q: 2}\n")
    data["a"]["p"].append(2)
    assert data == {"a": {"p": [1, 2]}, "b": {"p": [1]}, "c": {"p": [1], "q": 2}}
    assert "&" not in yaml_text.dump(data)


def test_a_comment_stands_above_what_it_is_about() -> None:
    data = {"spec": {"list": [{"name": "one"}, {"name": "two", "deep": {"x": "a\nb\n"}}]}, "last": 1}
    notes = [
        Note(("spec", "list", 1), "two"),
        Note(("spec", "list", 1, "deep", "x"), "text"),
        Note(("spec", "list", 1, "deep", "gone", "further"), "nearest"),
        Note(("last",), "twice"),
        Note(("last",), "twice"),
        Note((), "top"),
    ]
    assert yaml_text.dump(data, notes) == (
        "# top\nspec:\n  list:\n  - name: one\n  # two\n  - name: two\n    # nearest\n    deep:\n      # text\n      x: |\n"
        "        a\n        b\n# twice\nlast: 1\n"
    )


@pytest.mark.parametrize(
    "text", ["a\u2028b\nc\n", "a\x85\nb", "\ufeffa\n", "tail \n", "\n\n", " lead\n", "\t\n", "é\n😀"]
)
def test_text_comes_back(text: str) -> None:
    data = {"a": text, "b": [text], "c": 1}
    written = yaml_text.dump(data, [Note(("c",), "here")])
    assert yaml_text.load(written) == data
    assert yaml.safe_load(written) == data
    assert "# here\nc: 1\n" in written


def test_documents_are_counted_as_a_parser_does() -> None:
    text = "# head\n---\na: 1\n---\n---\n# only a comment\n---\nb: |\n  x\n --- no separator\n--- {c: 1}\n"
    found = split(Source("f", text))
    assert "".join(document.text for document in found) == text
    counted = [document.where for document in found if document.has_content]
    assert counted == ["f, document 1", "f, document 4", "f, document 5"]
    assert [document.line for document in found] == [1, 2, 4, 5, 7, 11]


def test_separators_are_added_where_there_is_none() -> None:
    assert join(["a: 1", "b: 2\n", "---\nc: 3\n", ""]) == "a: 1\n---\nb: 2\n---\nc: 3\n"


def test_the_head_of_a_document_is_what_comes_before_its_content() -> None:
    assert Document("---\n# one\n\n# two\na: 1 # three\n# four\n", "").head == "---\n# one\n\n# two\n"
    assert Document("--- {a: 1}\n", "").head == ""


@pytest.mark.parametrize("path", WITHOUT_TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_shipped_survives_reading_and_writing(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        text = yaml.safe_dump(document)
        assert yaml.safe_load(yaml_text.dump(yaml_text.load(text))) == document


def test_windows_line_ends_and_a_missing_last_one() -> None:
    text = f"apiVersion: v1\r\nkind: Service\r\n---\r\n{pod('nvidia.com/gpu: 1')}".replace("\n", "\r\n").rstrip()
    result = converted(text)
    assert result.problems == ()
    assert "gpumem" not in result.text
    assert converted(result.text).text == result.text
