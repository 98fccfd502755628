"""Protobuf's wire format by hand, so that field numbers and types are checked against numbers written in the tests."""

from __future__ import annotations

Value = int | bool | str | bytes


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: Value) -> bytes:
    """One field: integers and booleans as varint (wire type 0), text and messages length-delimited (wire type 2)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(int(value) & 0xFFFFFFFFFFFFFFFF)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(*fields: tuple[int, Value]) -> bytes:
    return b"".join(field(number, value) for number, value in fields)
