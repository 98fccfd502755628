"""The options of nvidia-cuda-mps-control -d and -f. Pure.

Protocol 3 brings -p and -m (NVIDIA's MPS documentation, MPS v3 Interface: Enabling MPS v3, Control Daemon Options); a
driver that does not know it refuses them, and takes no notice of CUDA_MPS_PROTOCOL_VERSION. Its -a, a configuration
file, is not simulated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.simulation.hardware.mps.protocols import LEGACY, NAMED

_MULTI_USER = ("-M", "--multiuser-server", "-multiuser-server")
_VARIABLE = "CUDA_MPS_PROTOCOL_VERSION"


@dataclass(frozen=True, slots=True)
class Options:
    foreground: bool = False
    background: bool = False
    multi_user: bool = False
    protocol: int = LEGACY


def options_of(words: Sequence[str], environment: Mapping[str, str], *, named: bool) -> Options | None:
    """None when they are not understood. ``named``: the driver knows protocol 3."""
    chosen, rest = Options(), list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-d", *(("--daemon",) if named else ())):
            chosen = replace(chosen, background=True)
        elif word in ("-f", *(("--foreground",) if named else ())):
            chosen = replace(chosen, foreground=True)
        elif word in (*_MULTI_USER, *(("-m", "--multiuser") if named else ())):
            chosen = replace(chosen, multi_user=True)
        elif named and word in ("-p", "--protocol") and rest and rest[0] in (str(LEGACY), str(NAMED)):
            chosen = replace(chosen, protocol=int(rest.pop(0)))
        else:
            return None
    if named and environment.get(_VARIABLE) in (str(LEGACY), str(NAMED)):  # "takes precedence" over the option
        chosen = replace(chosen, protocol=int(environment[_VARIABLE]))
    return chosen if chosen.foreground or chosen.background else None
