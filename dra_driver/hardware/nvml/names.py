"""NVML's numbers for brand, architecture and addressing mode, in the words of NVIDIA's DRA driver."""

from __future__ import annotations

BRANDS = {
    1: "Quadro",
    2: "Tesla",
    3: "NVS",
    4: "Grid",
    5: "GeForce",
    6: "Titan",
    7: "NvidiaVApps",
    8: "NvidiaVPC",
    9: "NvidiaVCS",
    10: "NvidiaVWS",
    11: "NvidiaCloudGaming",
    12: "QuadroRTX",
    13: "NvidiaRTX",
    14: "Nvidia",
    15: "GeForceRTX",
    16: "TitanRTX",
}
"""nvmlBrandType_t."""

ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
"""nvmlDeviceArchitecture_t."""

ADDRESSING_MODES = {0: "None", 1: "HMM", 2: "ATS"}
"""nvmlDeviceAddressingModeType_t."""

UNKNOWN = "Unknown"


def brand(number: int | None) -> str:
    return BRANDS.get(number, UNKNOWN) if number is not None else UNKNOWN


def architecture(number: int | None) -> str:
    return ARCHITECTURES.get(number, UNKNOWN) if number is not None else UNKNOWN


def addressing_mode(number: int | None) -> str | None:
    return ADDRESSING_MODES.get(number) if number is not None else None


def pci_bus_id(reported: str) -> str:
    """``00000000:1A:00.0`` (nvmlPciInfo_t.busId) becomes ``0000:1a:00.0``, the form of sysfs and of Kubernetes."""
    domain, rest = reported.lower().split(":", 1)
    return f"{int(domain, 16):04x}:{rest}"
