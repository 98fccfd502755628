"""Marks on claims: empty files with claims' UIDs for names, in a folder of their own.

For what is said of a claim to processes of the same boot: no crash of a process loses a mark, and none is ever half
there. Setting one is not synced, so a power cut may take it; that must not matter. It costs a tenth of what a write of
the checkpoint does.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from dra_driver.files import Durability, sync_folder


class Marks:
    """In ``folder``, which need not be there. Thread-safe, also beside another process. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, uid: str) -> None:
        path = self._folder / uid
        try:
            path.touch(0o600)
        except FileNotFoundError:
            self._folder.mkdir(mode=0o750, exist_ok=True)
            path.touch(0o600)

    def uids(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self._folder))
        except FileNotFoundError:
            return frozenset()

    def clear(self, uids: Collection[str], durability: Durability = Durability.WHOLE) -> None:
        """``durability``: LASTING where a power cut must not bring one back."""
        for uid in uids:
            (self._folder / uid).unlink(missing_ok=True)
        if uids and durability is Durability.LASTING:
            sync_folder(self._folder)
