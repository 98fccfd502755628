"""How often Python looks for cycles of garbage in the controller's process: seldom.

A look at a node makes twenty thousand objects and not one cycle. By Python's own thresholds (700, 10, 10) every fourth
look would walk through all that is known of thousands of nodes, which with two thousand took half of the time.
"""

from __future__ import annotations

import gc

_THRESHOLDS = (50_000, 10, 20)


def collect_seldom() -> None:
    """For the whole process, from now on. What is there already, its modules, is not looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
