"""The files that a group's daemon writes to for as long as it runs. Nobody else cuts them: the daemon itself writes ten
lines into its log whenever it is asked, and we ask every few seconds.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from dra_driver.mps.group import SERVER, GroupFolders

_MOST_BYTES = 16 * 2**20  # about half a day of our questions
_BLOCK_BYTES = 512  # of st_blocks (stat(2))


def cut(folders: GroupFolders) -> None:
    """Empty what has become too large. Raises OSError.

    What counts is what it takes on disk: one who does not append goes on where he was, in a file with a hole before it.
    """
    for folder in (folders.log, folders.log / SERVER):  # a server of protocol 3 has a folder of its own
        _cut_in(folder)


def _cut_in(folder: Path) -> None:
    if folder.is_symlink():
        return
    with contextlib.suppress(FileNotFoundError):  # the group is being removed, or has no such server
        for entry in os.scandir(folder):
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_blocks * _BLOCK_BYTES > _MOST_BYTES:
                os.truncate(entry.path, 0)
