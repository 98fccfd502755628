"""What a disk may hold after a power cut: which writes have surely reached it, and which may have or not.

The rules are those that POSIX leaves a file system: a rename or a removal is there for good once the folder is synced,
and before that is there or not, each file for itself; what was written is there for good once the file is synced, and
before that a file may be found empty. Nothing here depends on what one file system does better.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

Content = bytes | None
"""Of a file; None for one that is not there."""
World = Mapping[Path, Content]


class Disk:
    """Watches how files in ``folders`` come, go and are synced; temporary files (a leading dot) are nobody's.

    ``moments``: what the disk may hold, before the first of these and after each.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._synced: set[tuple[int, int]] = set()  # device and inode
        self._may_be: dict[Path, list[Content]] = {}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._may_be.update({path: [path.read_bytes()] for path in folder.iterdir() if path.is_file()})
        self.moments: list[dict[Path, list[Content]]] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Of this process; on whatever thread."""
        self._moment()
        with (
            mock.patch("os.open", self._around(os.open, self._opened)),
            mock.patch("os.rename", self._around(os.rename, self._renamed)),
            mock.patch("os.unlink", self._around(os.unlink, self._removed)),
            mock.patch("os.fsync", self._around(os.fsync, self._was_synced)),
        ):
            yield

    def worlds(self) -> Iterator[World]:
        """All that may be found, each once."""
        seen = set()
        for moment in self.moments:
            for contents in itertools.product(*moment.values()):
                world = tuple(zip(moment, contents, strict=True))
                if world not in seen:
                    seen.add(world)
                    yield dict(world)

    def _around(self, function: Any, then: Any) -> Any:
        def done(*arguments: Any, **more: Any) -> Any:
            answer = function(*arguments, **more)
            then(*arguments)
            return answer

        return done

    def _moment(self) -> None:
        self.moments.append({path: list(contents) for path, contents in self._may_be.items()})

    def _opened(self, path: Any, flags: int, *_mode: int) -> None:
        """A file that is made where it stays is an empty one."""
        if flags & os.O_CREAT and (self._may_be.get(Path(path)) or [None])[-1] is None:
            self._change(Path(path), b"")

    def _renamed(self, _source: Any, target: Any) -> None:
        self._change(Path(target), Path(target).read_bytes())

    def _removed(self, path: Any) -> None:
        self._change(Path(path), None)

    def _change(self, path: Path, content: Content) -> None:
        if path.parent not in self._folders or path.name.startswith("."):
            return
        may_be = self._may_be.setdefault(path, [None])
        if content is not None and _identity(os.stat(path)) not in self._synced:
            may_be.append(b"")
        may_be.append(content)
        self._moment()

    def _was_synced(self, descriptor: int) -> None:
        self._synced.add(_identity(os.fstat(descriptor)))
        folder = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if folder not in self._folders:
            return
        for path, contents in self._may_be.items():
            if path.parent == folder:
                last = contents[-1]
                is_whole = last is None or _identity(os.stat(path)) in self._synced
                contents[:] = [last] if is_whole else [b"", last]
        self._moment()


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
