"""Versions as attributes: what NVML says, turned into the strict SemVer 2.0.0 that the API server wants.

``580.105.08`` is not SemVer (leading zero), nor is ``9.0`` (two parts). NVIDIA's driver publishes ``580.105.8`` and
``9.0.0``, so a selector such as ``driverVersion.isGreaterThan(semver("580.0.0"))`` works; so do we. A text with more
than that, ``580.105.08-beta.1``, keeps the rest as build metadata, which versions are not compared by: the attribute
stays a version on every node, since one that is a string here fails the selector's pod everywhere. Only a text
that does not begin with a number is published as a string.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dra_driver.devices.model import Version
from dra_driver.devices.text import MAX_BYTES, clip

_NUMBERS = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+){0,2})(.*)", re.ASCII | re.DOTALL)
_NOT_IN_BUILD = re.compile(r"[^0-9A-Za-z-]+", re.ASCII)


@lru_cache(maxsize=256)  # every device of a node says the same
def version_attribute(text: str) -> Version | str:
    """A version of one to three numbers, zeros filled in; see the module's text for anything else."""
    match = _NUMBERS.fullmatch(text.strip())
    if match is None:
        return clip(text)
    numbers = [str(int(number)) for number in match[1].split(".")]
    core = ".".join([*numbers, "0", "0"][:3])
    rest = ".".join(part for part in _NOT_IN_BUILD.split(match[2].strip(".-+")) if part)
    if len(core) > MAX_BYTES:
        return clip(text)
    return Version(f"{core}+{rest}"[:MAX_BYTES].rstrip("+.") if rest else core)


def cuda_version_attribute(number: int) -> Version:
    """NVML's ``13000`` is 13.0.0 and ``12040`` is 12.4.0 (nvmlSystemGetCudaDriverVersion_v2)."""
    return Version(f"{number // 1000}.{number % 1000 // 10}.0")
