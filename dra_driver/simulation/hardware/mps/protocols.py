"""Which protocols the MPS of a driver speaks.

Protocol 3 ("MPS v3") came with driver branch r615: NVIDIA's MPS documentation has it from release 615 on
(docs.nvidia.com/deploy/mps/615, Quick Start), and the page "Per-GPU Compute and Memory Limits with MPS" of NVIDIA
Dynamo's documentation asks for r615 and CUDA 13.4. Protocol 2, the Legacy MPS, stays the default.
"""

from __future__ import annotations

LEGACY = 2
NAMED = 3
_NAMED_FROM = 615


def speaks_named(driver_version: str | None) -> bool:
    """Whether protocol 3 is known to the programs of that driver; None: there are none."""
    return driver_version is not None and int(driver_version.partition(".")[0]) >= _NAMED_FROM
