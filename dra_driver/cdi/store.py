"""The folder of CDI files: one file per claim, whole or absent.

Container runtimes watch the folder; ``files.write_atomically`` renames within it, which they notice.
The folder is a tmpfs on most nodes, so what is written is not synced to disk; what a power cut elsewhere takes, the
plugin's next start writes again. A removal is synced, since the claim's record goes after it: a file without a record
is somebody else's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from dra_driver.cdi.decode import decode
from dra_driver.cdi.encode import encode
from dra_driver.cdi.names import CLASS, VENDOR, CdiNames
from dra_driver.cdi.spec import Spec
from dra_driver.errors import StateError
from dra_driver.files import Durability, is_volatile, sync_folder, target_of_temporary, write_atomically


class CdiStore:
    """CDI files under ``root`` (``/var/run/cdi`` on a node). Remembers none: two processes may use one folder."""

    def __init__(self, root: Path, vendor: str = VENDOR, class_: str = CLASS) -> None:
        self._root = root
        self.names = CdiNames(vendor, class_)

    @property
    def root(self) -> Path:
        return self._root

    @cached_property
    def is_volatile(self) -> bool:
        """Whether a power cut takes all files, as on most nodes."""
        return is_volatile(self._root)

    def path(self, claim_uid: str) -> Path:
        """Raises :class:`StateError` for a UID that does not belong in a file name."""
        return self._root / self.names.file_name(claim_uid)

    def write(self, claim_uid: str, spec: Spec) -> None:
        """Make the claim's file say ``spec``. Raises :class:`StateError` naming the file."""
        path = self.path(claim_uid)
        data = encode(spec)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, mode=0o644, durability=Durability.NONE)
        except OSError as error:
            raise StateError(
                f"cannot write CDI file {path}: {error.strerror or error}",
                hint="check that the CDI folder is mounted from the host and writable",
            ) from error

    def holds(self, claim_uid: str, spec: Spec) -> bool:
        """Whether the claim's file is there and says exactly ``spec``."""
        try:
            return self.path(claim_uid).read_bytes() == encode(spec)
        except OSError:
            return False  # missing or unreadable: writing it again is the remedy and names the reason

    def read(self, claim_uid: str) -> Spec | None:
        """The spec in the claim's file, None without one. Raises ``SpecError`` for a file no runtime would take."""
        path = self.path(claim_uid)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read CDI file {path}: {error.strerror or error}") from error
        return decode(data, source=str(path))

    def remove(self, claim_uid: str) -> bool:
        """Remove the claim's file for good; True when it was there."""
        path = self.path(claim_uid)
        try:
            path.unlink()
            sync_folder(self._root)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StateError(f"cannot remove CDI file {path}: {error.strerror or error}") from error
        return True

    def claim_uids(self) -> tuple[str, ...]:
        """UIDs of all claims that have a file of this kind here, sorted."""
        uids = (self.names.claim_uid(name) for name in self._file_names())
        return tuple(sorted(uid for uid in uids if uid is not None))

    def temporaries(self) -> Mapping[Path, str]:
        """Files that a killed writer left, with the UIDs of their claims."""
        found: dict[Path, str] = {}
        for name in self._file_names():
            uid = self.names.claim_uid(target_of_temporary(name) or "")
            if uid is not None:
                found[self._root / name] = uid
        return found

    def _file_names(self) -> list[str]:
        try:
            return os.listdir(self._root)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"cannot list CDI folder {self._root}: {error.strerror or error}") from error
