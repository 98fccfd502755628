"""NVML's return codes (nvmlReturn_t in nvml.h), for the adapter that reads them and the simulation that gives them."""

from __future__ import annotations

from enum import IntEnum


class Return(IntEnum):
    """nvmlReturn_t. The names are NVML's without their prefix."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    ALREADY_INITIALIZED = 5
    NOT_FOUND = 6
    INSUFFICIENT_SIZE = 7
    INSUFFICIENT_POWER = 8
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    IRQ_ISSUE = 11
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    CORRUPTED_INFOROM = 14
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    OPERATING_SYSTEM = 17
    LIB_RM_VERSION_MISMATCH = 18
    IN_USE = 19
    MEMORY = 20
    NO_DATA = 21
    VGPU_ECC_NOT_SUPPORTED = 22
    INSUFFICIENT_RESOURCES = 23
    FREQ_NOT_SUPPORTED = 24
    ARGUMENT_VERSION_MISMATCH = 25
    DEPRECATED = 26
    NOT_READY = 27
    GPU_NOT_FOUND = 28
    INVALID_STATE = 29
    RESET_TYPE_NOT_SUPPORTED = 30
    UNKNOWN = 999


UNSUPPORTED = frozenset(
    {Return.NOT_SUPPORTED, Return.FUNCTION_NOT_FOUND, Return.ARGUMENT_VERSION_MISMATCH, Return.DEPRECATED}
)
"""Answers that mean "this GPU or this driver has no such query" and not that something is broken."""

GONE = frozenset({Return.GPU_IS_LOST, Return.GPU_NOT_FOUND})
"""Answers that mean the GPU is not there any more."""


def code_name(code: int) -> str:
    """``NVML_ERROR_GPU_IS_LOST`` for 15, ``NVML error 77`` for a code we do not know."""
    try:
        known = Return(code)
    except ValueError:
        return f"NVML error {code}"
    return "NVML_SUCCESS" if known is Return.SUCCESS else f"NVML_ERROR_{known.name}"
