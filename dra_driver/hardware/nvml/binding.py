"""The only module that imports pynvml (the nvidia-ml-py distribution): calls by NVML name, errors mapped once.

pynvml keeps the library in a module variable and caches its function pointers; whoever puts another library in its
place (a driver root's, the simulated one) does it here. A function that pynvml or the library lacks is "function not
found", the same as an old driver.
"""

from __future__ import annotations

from ctypes import CDLL, RTLD_GLOBAL
from typing import Any

import pynvml

from dra_driver.hardware.nvml.codes import UNSUPPORTED, Return
from dra_driver.hardware.nvml.errors import call_failed

INIT_FLAG_NO_GPUS = 1  # NVML_INIT_FLAG_NO_GPUS: a node whose GPUs are gone or not there yet still initialises


def call(function: str, *arguments: Any, device: str = "") -> Any:
    """Call pynvml's wrapper ``function``. ``device`` names the GPU for error messages.

    HardwareUnavailable when NVML cannot be used at all, NvmlCallError for every other code.
    """
    wrapper = getattr(pynvml, function, None)
    if wrapper is None:
        raise call_failed(function, device, Return.FUNCTION_NOT_FOUND)
    try:
        return wrapper(*arguments)
    except pynvml.NVMLError as error:
        raise call_failed(function, device, error.value) from error


def query(function: str, *arguments: Any, device: str = "") -> Any:
    """Like :func:`call`, but None when the GPU or the driver has no such query."""
    wrapper = getattr(pynvml, function, None)
    if wrapper is None:
        return None
    try:
        return wrapper(*arguments)
    except pynvml.NVMLError as error:
        if error.value in UNSUPPORTED:
            return None
        raise call_failed(function, device, error.value) from error


def array(structure: str, length: int) -> Any:
    """A C array of pynvml's ``structure`` for calls that fill a caller's buffer."""
    return (getattr(pynvml, structure) * length)()


def library() -> object | None:
    """What stands in for libnvidia-ml now; None when nothing was loaded yet."""
    loaded: object | None = pynvml.nvmlLib
    return loaded


def load(path: str) -> None:
    """Load the library at ``path``. OSError as dlopen gives it.

    RTLD_GLOBAL, so that a later lookup by soname (by other code in this process) finds the same one.
    """
    replace(CDLL(path, mode=RTLD_GLOBAL))


def replace(stand_in: object | None) -> None:
    """Put ``stand_in`` in the place of libnvidia-ml; None means "not loaded". Nothing may be using NVML meanwhile."""
    with pynvml.libLoadLock:
        pynvml.nvmlLib = stand_in
        pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001  # it would go on calling the old library
