"""The kinds of devices, one room each, and the one place where they are registered.

A room says everything about its kind through the protocols of ``kubelet_plugin.prepare.kind``, and knows no other room.
What several of them need of a GPU lies beside them: ``gpus``, ``in_the_way``.
"""

from __future__ import annotations

from kubelet_plugin.kinds.registered import KINDS, WRAPPERS, NodeTools, build_kinds, tools_of

__all__ = ["KINDS", "WRAPPERS", "NodeTools", "build_kinds", "tools_of"]
