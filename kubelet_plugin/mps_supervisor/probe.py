"""Which protocols the node's MPS programs speak: the control program is asked, its version is not looked at.

``nvidia-cuda-mps-control -p 3 -h`` names the modules "server" and "namespace" where protocol 3 is known (NVIDIA Dynamo,
"Per-GPU Compute and Memory Limits with MPS", Requirements); an older program does not know ``-p``. The pipe directory
it gets is none of anybody's, since a daemon that runs would overrule the option (MPS v3 Interface, Enabling MPS v3).
"""

from __future__ import annotations

import re
import threading
import time
from subprocess import PIPE, TimeoutExpired
from typing import Final

from dra_driver.errors import DriverError
from dra_driver.mps.group import LEGACY, NAMED
from kubelet_plugin.mps_supervisor.control import kill
from kubelet_plugin.mps_supervisor.namespaces import Isolation, no_input
from kubelet_plugin.mps_supervisor.surroundings import Home

_ASKED: Final = ("-p", str(NAMED), "-h")
_NAMES: Final = frozenset(("server", "namespace"))
_WORD = re.compile(r"[a-z-]+")
_SECONDS = 1.0  # whoever asks for it waits
_KEPT_SECONDS = 60.0  # a program that did not say yes is asked again


class Protocols:
    """Thread-safe."""

    def __init__(self, home: Home, isolation: Isolation) -> None:
        self._home = home
        self._isolation = isolation
        self._lock = threading.Lock()
        self._known: tuple[object, float, tuple[int, ...]] | None = None

    def known(self) -> tuple[int, ...]:
        """LEGACY always: that a program is missing is told when one is needed."""
        with self._lock:
            try:
                stamp = self._home.control_stamp()
            except (DriverError, OSError):
                return (LEGACY,)
            now = time.monotonic()
            if self._known is not None and self._known[0] == stamp and now < self._known[1]:
                return self._known[2]
            found = (LEGACY, NAMED) if self._says_yes() else (LEGACY,)
            self._known = (stamp, float("inf") if NAMED in found else now + _KEPT_SECONDS, found)
            return found

    def _says_yes(self) -> bool:
        program = self._home.alone(self._home.control())
        try:
            with no_input() as null:
                process = self._isolation.start(program, _ASKED, standard_input=null, output=PIPE)
        except (DriverError, OSError):
            return False
        try:
            output, _ = process.communicate(timeout=_SECONDS)
        except TimeoutExpired:
            kill(process)
            return False
        # Whatever it ends with: no page says with what, and no older program has both names.
        return _NAMES.issubset(_WORD.findall(output.decode(errors="replace")))
