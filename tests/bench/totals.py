"""What a process under measurement has counted by its own metric: runs of other programs, and the time in them."""

from __future__ import annotations

import contextlib
import http.client
import re


class Totals:
    """``pattern`` finds (``sum`` or ``count``, value) of a histogram in seconds, at ``port`` of this machine."""

    def __init__(self, port: int, pattern: re.Pattern[str]) -> None:
        self._port = port
        self._pattern = pattern

    def so_far(self) -> tuple[float, float]:
        """How many runs, and for how many milliseconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            found = self._pattern.findall(connection.getresponse().read().decode())
        totals = {kind: sum(float(value) for each, value in found if each == kind) for kind in ("count", "sum")}
        return totals["count"], totals["sum"] * 1000
