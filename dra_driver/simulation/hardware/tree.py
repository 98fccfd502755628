"""A file tree that is brought to a wanted content while others read it: what is right already is not touched.

Processes and containers hold these files by bind mounts, and a runtime may be resolving a device node at this moment;
so a file is replaced only when it differs, and then by a rename, never emptied or missing in between.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dra_driver.files import Durability, write_atomically

_DEVICE_MODE = 0o666


class Tree:
    """One pass over ``root``. ``changed`` counts what was made, replaced or removed; paths are relative to ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changed = 0
        self._wanted: set[Path] = set()

    def file(self, name: str, content: str | bytes, *, mode: int = 0o644) -> None:
        path = self._want(name)
        data = content.encode() if isinstance(content, str) else content
        if not _is_file(path, data, mode):
            # A simulation survives no power cut, so nothing waits for the disk.
            write_atomically(path, data, mode=mode, durability=Durability.NONE)
            self.changed += 1

    def link(self, name: str, target: str) -> None:
        path = self._want(name)
        if not (path.is_symlink() and os.readlink(path) == target):
            self._replace(path, lambda new: new.symlink_to(target))

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device; an empty file where none may be made (no root, no CAP_MKNOD, a user namespace)."""
        path = self._want(name)
        number = os.makedev(major, minor)
        if _is_device(path, number):
            return
        try:
            self._replace(path, lambda new: _make_node(new, number))
        except PermissionError:
            if not _is_file(path, b"", _DEVICE_MODE):
                self._replace(path, _make_empty)

    def prune(self, folder: str, mine: Callable[[str], bool] = lambda name: True) -> None:
        """Remove what is below ``folder`` and not wanted by this pass, as far as ``mine`` says yes to its name.

        Names with a leading dot stay: they are what another process that builds the same tree is about to rename.
        """
        for parent, folders, files in os.walk(self.root / folder, topdown=False):
            inner = [each for each in folders if not (Path(parent) / each).is_symlink()]
            for name in {*files, *folders} - set(inner):
                path = Path(parent) / name
                if path not in self._wanted and not name.startswith(".") and mine(name):
                    path.unlink(missing_ok=True)
                    self.changed += 1
            for name in inner:
                with suppress(OSError):  # not empty
                    (Path(parent) / name).rmdir()

    def _want(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._wanted.add(path)
        return path

    def _replace(self, path: Path, make: Callable[[Path], None]) -> None:
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            make(new)
            new.rename(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self.changed += 1


def _is_file(path: Path, data: bytes, mode: int) -> bool:
    try:
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _is_device(path: Path, number: int) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    right = stat.S_ISCHR(found.st_mode) and found.st_rdev == number
    return right and stat.S_IMODE(found.st_mode) == _DEVICE_MODE


def _make_node(path: Path, number: int) -> None:
    os.mknod(path, stat.S_IFCHR | _DEVICE_MODE, number)
    path.chmod(_DEVICE_MODE)  # mknod applies the umask


def _make_empty(path: Path) -> None:
    path.touch()
    path.chmod(_DEVICE_MODE)
