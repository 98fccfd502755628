"""What is on disk of limits: one file for each share that has any, written before they are set and removed after.

``<folder>/<claim UID>_<key>.json``, replaced as a whole. It needs not survive a power cut: after a reboot there is no
cgroup of before, so nothing to clear; the boot id tells. Written with the lock of its share held.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dra_driver.errors import StateError
from dra_driver.files import Durability, target_of_temporary, write_atomically
from kubelet_plugin.memory_fence.share import ShareName

logger = logging.getLogger(__name__)

_VERSION: Final = 1
_SUFFIX, _DAMAGED = ".json", ".damaged"


@dataclass(frozen=True, slots=True)
class Fenced:
    """The part of one share in the limits of one cgroup, on one GPU. ``inode`` tells the cgroup from a later one."""

    cgroup: Path
    inode: int
    gpu_uuid: str
    soft: int
    hard: int

    @property
    def place(self) -> tuple[Path, int, str]:
        return self.cgroup, self.inode, self.gpu_uuid


@dataclass(frozen=True, slots=True)
class Record:
    share: ShareName
    boot_id: str
    fenced: tuple[Fenced, ...] = ()

    def with_(self, *more: Fenced) -> Record:
        """``more`` in the place of what was there for the same cgroup and GPU."""
        places = {each.place for each in more}
        return replace(self, fenced=(*(each for each in self.fenced if each.place not in places), *more))

    def without(self, *gone: Fenced) -> Record:
        return replace(self, fenced=tuple(each for each in self.fenced if each not in gone))


class Records:
    """The folder of records, which must be there. Methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, share: ShareName) -> Record | None:
        """None where there is none. StateError for one of another version; a damaged one is set aside."""
        return self._read(self._path(share))

    def all(self) -> Iterator[Record]:
        """Those that can be read."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path.name.startswith("."):
                continue
            try:
                record = self._read(path)
            except StateError as error:
                logger.warning("a record of memory limits is left alone: %s", error)
                continue
            if record is not None:
                yield record

    def put(self, record: Record) -> None:
        """One that says nothing is removed."""
        path = self._path(record.share)
        if not record.fenced:
            path.unlink(missing_ok=True)
            return
        data = {
            "version": _VERSION,
            "bootID": record.boot_id,
            "claimUID": record.share.claim_uid,
            "share": record.share.key,
            "fenced": [
                {
                    "cgroup": str(each.cgroup),
                    "inode": each.inode,
                    "gpu": each.gpu_uuid,
                    "soft": each.soft,
                    "hard": each.hard,
                }
                for each in record.fenced
            ],
        }
        write_atomically(path, json.dumps(data).encode(), mode=0o600, durability=Durability.NONE)

    def half_written(self) -> list[tuple[ShareName, Path]]:
        """Files of plugins that were killed, or are at work: who has the share's lock may remove its."""
        found = []
        for path in self._folder.iterdir():
            target = target_of_temporary(path.name)
            if target is not None:
                claim, _, key = target.removesuffix(_SUFFIX).partition("_")
                found.append((ShareName.of(claim, key), path))
        return found

    def _path(self, share: ShareName) -> Path:
        return self._folder / f"{share.claim_uid}_{share.key}{_SUFFIX}"

    def _read(self, path: Path) -> Record | None:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise StateError(
                    f"{path} is of version {data['version']}, this plugin knows {_VERSION}",
                    hint="the plugin that wrote it, or a later one, clears what it names",
                )
            fenced = tuple(
                Fenced(Path(each["cgroup"]), int(each["inode"]), str(each["gpu"]), int(each["soft"]), int(each["hard"]))
                for each in data["fenced"]
            )
            return Record(ShareName.of(data["claimUID"], data["share"]), str(data["bootID"]), fenced)
        except (ValueError, KeyError, TypeError) as error:
            aside = path.with_name(path.name + _DAMAGED)
            path.replace(aside)
            logger.error(  # noqa: TRY400 - the text says all
                "the record of memory limits %s is damaged (%s) and set aside as %s: limits of its containers may stay "
                "until these have ended",
                path,
                error,
                aside,
            )
            return None
