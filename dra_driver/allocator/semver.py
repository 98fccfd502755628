"""Strict Semantic Versioning 2.0.0 as the Kubernetes CEL library compares it (k8s.io/apiserver/pkg/cel/semver.go).

Build metadata does not take part in comparisons, so ``1.0.0+a`` equals ``1.0.0+b``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import total_ordering

_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_STRICT = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_MAX_NUMBER = 2**64 - 1


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class SemVer:
    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: str = field(default="")

    @classmethod
    def parse(cls, text: str) -> SemVer:
        """Raises ValueError for anything that is not strict SemVer, such as ``v1.2.3``, ``1.2`` or ``1.02.3``."""
        match = _STRICT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a semantic version such as 580.105.8")
        major, minor, patch = (int(part) for part in match.group(1, 2, 3))
        if max(major, minor, patch) > _MAX_NUMBER:
            raise ValueError(f"{text!r}: a part of the version is beyond 64 bits")
        prerelease = tuple(match.group(4).split(".")) if match.group(4) else ()
        return cls(major, minor, patch, prerelease, match.group(5) or "")

    @classmethod
    def parse_tolerant(cls, text: str) -> SemVer:
        """With ``normalize``: a leading v is dropped, one or two parts are filled with zeros, leading zeros dropped."""
        core, separator, rest = _split_suffix(text.removeprefix("v"))
        parts = core.split(".")
        if len(parts) > 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(f"{text!r} is not a version")
        if len(parts) < 3 and rest:
            raise ValueError(f"{text!r}: a short version cannot carry a pre-release or build part")
        numbers = [str(int(part)) for part in parts] + ["0"] * (3 - len(parts))
        return cls.parse(".".join(numbers) + separator + rest)

    def __eq__(self, other: object) -> bool:
        return self._order() == other._order() if isinstance(other, SemVer) else NotImplemented

    def __lt__(self, other: SemVer) -> bool:
        return self._order() < other._order()

    def __hash__(self) -> int:
        return hash(self._order())

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        return f"{text}+{self.build}" if self.build else text

    def _order(self) -> tuple[object, ...]:
        """SemVer 2.0.0 item 11: a release is above its pre-releases; numbers below words, shorter below longer."""
        identifiers = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.prerelease)
        return self.major, self.minor, self.patch, not self.prerelease, identifiers


def _split_suffix(text: str) -> tuple[str, str, str]:
    for position, character in enumerate(text):
        if character in "-+":
            return text[:position], character, text[position + 1 :]
    return text, "", ""
