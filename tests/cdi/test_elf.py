"""Reading DT_SONAME from a library file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.cdi.driver_files import find_driver_files
from dra_driver.cdi.elf import read_soname
from dra_driver.cdi.roots import Root
from tests.cdi.driver_root import VERSION, add_file


def library(soname: str | None, order: str = "<") -> bytes:
    """The smallest ELF file with a dynamic section: header, two program headers, tags, strings."""
    strings = b"\0" + (soname or "").encode() + b"\0"
    tags_offset, base = 64 + 2 * 56, 0x400000
    tags = [(5, base + tags_offset + 48), (14, 1), (0, 0)] if soname is not None else [(5, 0), (0, 0), (0, 0)]
    dynamic = b"".join(struct.pack(f"{order}qQ", *tag) for tag in tags)
    size = tags_offset + len(dynamic) + len(strings)
    header = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    header += struct.pack(f"{order}HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    dynamic_header = struct.pack(f"{order}IIQQQQQQ", 2, 6, tags_offset, base + tags_offset, 0, len(dynamic), 48, 8)
    return header + load + dynamic_header + dynamic + strings


@pytest.mark.parametrize("order", ["<", ">"])
def test_soname(order: str, tmp_path: Path) -> None:
    path = tmp_path / "lib"
    path.write_bytes(library("libcuda.so.1", order))
    assert read_soname(path) == "libcuda.so.1"


@pytest.mark.parametrize("data", [b"", b"stub\n", b"\x7fELF", library(None), library("x")[:100]])
def test_no_soname(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lib"
    path.write_bytes(data)
    assert read_soname(path) is None


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_file_never_raises(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    data = bytearray(library("libcuda.so.1"))
    data[at % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.so"
    path.write_bytes(data)
    read_soname(path)


def test_a_library_without_links_gets_its_soname(tmp_path: Path) -> None:
    add_file(tmp_path, f"/usr/lib64/libcuda.so.{VERSION}", library("libcuda.so.1"))
    add_file(tmp_path, f"/usr/lib64/libnvidia-glcore.so.{VERSION}", library(f"libnvidia-glcore.so.{VERSION}"))
    cuda, glcore = find_driver_files(Root(tmp_path), VERSION).libraries
    assert cuda.links == (("libcuda.so.1", f"libcuda.so.{VERSION}"),)
    assert glcore.links == ()
