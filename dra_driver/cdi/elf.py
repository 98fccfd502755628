"""The SONAME of a shared library, read from its ELF file: the name under which other programs ask for it.

Needed where the driver root has no ``libcuda.so.1 -> libcuda.so.580.105.08`` links, and nothing will run ldconfig.
Formats: System V ABI, chapters 4 and 5 (ELF header, program header, dynamic section); 64-bit only, as the driver is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x7fELF"
_CLASS_64 = 2
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_STRTAB, _DT_SONAME = 0, 5, 14
_MAX_NAME = 256

_Read = Callable[[int, int], bytes]  # offset, size -> at most that many bytes


def read_soname(path: Path) -> str | None:
    """The DT_SONAME entry; None for a file without one or one that is not a 64-bit ELF library. Raises OSError."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size

        def read(offset: int, size: int) -> bytes:
            if offset >= end:
                return b""
            file.seek(offset)
            return file.read(min(size, end - offset))

        try:
            return _soname(read)
        except (struct.error, OverflowError, UnicodeDecodeError):
            return None  # cut short or with wild offsets: no library anybody could load


@dataclass(frozen=True, slots=True)
class _Segment:
    """The fields of Elf64_Phdr that matter here."""

    type: int
    offset: int
    address: int
    size: int

    @classmethod
    def parse(cls, data: bytes, order: str) -> _Segment:
        type_, _flags, offset, address, _physical, size = struct.unpack_from(f"{order}IIQQQQ", data)
        return cls(type_, offset, address, size)


def _soname(read: _Read) -> str | None:
    header = read(0, 64)
    if header[:4] != _MAGIC or len(header) < 64 or header[4] != _CLASS_64:
        return None
    order = "<" if header[5] == 1 else ">"
    table_offset = struct.unpack_from(f"{order}Q", header, 32)[0]
    entry_size, entry_count = struct.unpack_from(f"{order}HH", header, 54)
    segments = [
        _Segment.parse(read(table_offset + position * entry_size, entry_size), order) for position in range(entry_count)
    ]
    dynamic = next((segment for segment in segments if segment.type == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    tags: dict[int, int] = {}
    for tag, value in struct.iter_unpack(f"{order}qQ", read(dynamic.offset, dynamic.size // 16 * 16)):
        if tag == _DT_NULL:
            break
        tags[tag] = value
    if _DT_SONAME not in tags or _DT_STRTAB not in tags:
        return None
    strings = _file_offset(segments, tags[_DT_STRTAB])
    if strings is None:
        return None
    name = read(strings + tags[_DT_SONAME], _MAX_NAME).partition(b"\0")[0].decode()
    return name or None


def _file_offset(segments: list[_Segment], address: int) -> int | None:
    for segment in segments:
        if segment.type == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    return None
