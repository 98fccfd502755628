"""Text as documents, each with its own text: what is not converted is written as it was, byte for byte.

A line that begins with ``---`` separates documents wherever it stands (YAML 1.2.2, c-forbidden), so a document that is
not YAML spoils no other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SEPARATOR = re.compile(r"---(?=\s|$)")
_NOTHING = re.compile(r"\s*(?:#.*)?|%.*")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or standard input. ``name`` is how it was given."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """``text`` with its separator, where it has one, begins at ``line`` of its source; ``where`` names it to people."""

    text: str
    where: str
    line: int = 1

    @property
    def has_content(self) -> bool:
        return not all(_NOTHING.fullmatch(line) for line in self._body())

    @property
    def head(self) -> str:
        """Separator, comments and blank lines before the content."""
        lines = []
        for line in _LINE.findall(self.text):
            if line.rstrip() != "---" and not _NOTHING.fullmatch(line.rstrip("\r\n")):
                break
            lines.append(line)
        return "".join(lines)

    def commented(self, comment: str) -> str:
        """The text below lines of a comment, unless they are there already."""
        if comment in self.text:
            return self.text
        head = self.head
        if not head and _SEPARATOR.match(self.text):  # the content begins on the separator's line
            return f"---\n{comment}{self.text[3:].lstrip(' ')}"
        return head + comment + self.text[len(head) :]

    def _body(self) -> Iterator[str]:
        for at, line in enumerate(_LINE.findall(self.text)):
            yield (line.removeprefix("---") if at == 0 and _SEPARATOR.match(line) else line).rstrip("\r\n")


def split(source: Source) -> list[Document]:
    """The documents of ``source``; their texts joined are its text. Numbers are those that a YAML parser counts."""
    parts: list[list[str]] = [[]]
    for line in _LINE.findall(source.text):
        if _SEPARATOR.match(line):
            parts.append([])
        parts[-1].append(line)
    texts = ["".join(part) for part in parts if part]
    found: list[Document] = []
    number, line = 0, 1
    for at, text in enumerate(texts):
        prologue = at == 0 and not _SEPARATOR.match(text) and not Document(text, "").has_content
        number += 0 if prologue else 1
        found.append(Document(text, f"{source.name}, document {max(number, 1)}", line))
        line += text.count("\n")
    return found


def join(parts: Iterable[str]) -> str:
    """Documents one after the other, with a separator before each that has none."""
    text = ""
    for part in parts:
        if text and not text.endswith("\n"):
            text += "\n"
        if text and part and not _SEPARATOR.match(part):
            text += "---\n"
        text += part
    return text
