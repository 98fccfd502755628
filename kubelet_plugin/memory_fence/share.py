"""A share of GPUs as this room knows it: its name, and what its containers may have. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dra_driver.errors import StateError

# Both are words of a file's name, and arguments of the hook. Device names and share ids are of these characters.
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class ShareName:
    """``key``: which share of the claim, in words of the kind that asks for the fence."""

    claim_uid: str
    key: str

    @classmethod
    def of(cls, claim_uid: str, key: str) -> ShareName:
        """Raises StateError for what cannot be a name."""
        for word in (claim_uid, key):
            if not _WORD.fullmatch(word):
                raise StateError(
                    f"{word!r} cannot be part of the name of a share", hint="use letters, digits, '-', '.'"
                )
        return cls(claim_uid, key)

    def __str__(self) -> str:
        return f"share {self.key} of claim {self.claim_uid}"


@dataclass(frozen=True, slots=True)
class ShareLimit:
    """In bytes: ``soft`` is guaranteed, beyond ``hard`` an allocation fails."""

    gpu_uuid: str
    soft: int
    hard: int
