"""C arguments as pynvml passes them: reading values, and writing results where the caller asked for them.

pynvml passes ``byref(x)`` for results (the object is its ``_obj``), arrays as they are, None for NULL, handles as
ctypes pointers, and plain numbers either as ints or as ctypes values. Whatever a C function would refuse ends the call
with :class:`Refused`; what it would not notice (a buffer shorter than its stated length) is refused too.
"""

from __future__ import annotations

import ctypes
from typing import Any

from dra_driver.hardware.nvml.codes import Return


class Refused(Exception):  # a return code on its way out, not an error of ours
    """Ends the simulated call with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def target(argument: Any) -> Any:
    """What a result pointer points to. NULL is an invalid argument."""
    if argument is None:
        raise Refused(Return.INVALID_ARGUMENT)
    return argument._obj if hasattr(argument, "_obj") else argument  # noqa: SLF001  # how ctypes shows byref's object


def number(argument: Any) -> int:
    """An integer argument, passed as an int or as a ctypes value."""
    value = argument.value if hasattr(argument, "value") else argument
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(Return.INVALID_ARGUMENT)
    return value


def text(argument: Any) -> str:
    """A ``const char *`` argument."""
    value = argument.value if hasattr(argument, "value") else argument
    if not isinstance(value, bytes):
        raise Refused(Return.INVALID_ARGUMENT)
    return value.decode(errors="replace")


def write_text(buffer: Any, length: Any, value: str) -> None:
    """Copy ``value`` and its NUL into a caller's buffer; too small a buffer is "insufficient size", as NVML says."""
    if buffer is None:
        raise Refused(Return.INVALID_ARGUMENT)
    encoded = value.encode()
    if min(number(length), ctypes.sizeof(buffer)) <= len(encoded):
        raise Refused(Return.INSUFFICIENT_SIZE)
    buffer.value = encoded


def require_version(structure: Any, version: int) -> None:
    """Versioned structures carry their version in; another one is refused and nothing is written."""
    if structure.version != version:
        raise Refused(Return.ARGUMENT_VERSION_MISMATCH)


def address_of(handle: Any) -> int:
    """The number inside an opaque handle. NULL is an invalid argument."""
    if handle is None:
        raise Refused(Return.INVALID_ARGUMENT)
    try:
        address = ctypes.cast(handle, ctypes.c_void_p).value
    except (ctypes.ArgumentError, TypeError) as error:
        raise Refused(Return.INVALID_ARGUMENT) from error
    if not address:
        raise Refused(Return.INVALID_ARGUMENT)
    return address


def set_address(pointer: Any, address: int) -> None:
    """Make the caller's handle (a ctypes pointer object, or one element of an array of them) be ``address``."""
    ctypes.c_void_p.from_buffer(pointer).value = address
