"""The NVIDIA kernel module that is loaded now, read under one injected host root.

``/sys/module/nvidia/version`` and ``/proc/driver/nvidia/version`` say its version, and both go with it.
"""

from __future__ import annotations

import re
from pathlib import Path

_PLACES = ("sys/module/nvidia/version", "proc/driver/nvidia/version")
_VERSION = re.compile(r"(?<![\w.])\d+\.\d+(?:\.\d+)?(?![\w.])")


def module_version(host_root: Path) -> str | None:
    """Version of the loaded module, ``580.105.08``; None when none is loaded, or ``host_root`` does not show it."""
    for place in _PLACES:
        try:
            said = (host_root / place).read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # not loaded, or another kind of root; the other place may know
        # The second begins: "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build ...".
        if match := _VERSION.search(said):
            return match[0]
    return None
