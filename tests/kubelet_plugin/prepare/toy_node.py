"""A node with toys, and with ribbons around its GPUs."""

from __future__ import annotations

from pathlib import Path

from kubelet_plugin.kinds.whole import WholeGpus
from kubelet_plugin.prepare.kinds import Kinds
from tests.kubelet_plugin.prepare.node import BOOT, TestNode
from tests.kubelet_plugin.prepare.toy_kinds import Ribbon, ToyKind


class ToyNode(TestNode):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gates = frozenset(("TimeSlicingSettings", "MPSSupport"))
        self.toys = ToyKind(folder / "toys")
        self.ribbons = Ribbon(folder / "ribbons")

    def kinds(self, boot_id: str = BOOT) -> Kinds:
        whole = WholeGpus(self.mig, self.edits, self.node_policy(boot_id))
        return Kinds([whole, self.toys], [self.ribbons])

    def made(self) -> list[str]:
        """Names of the files that are there."""
        return sorted(path.name for maker in (self.toys, self.ribbons) for path in maker.folder.iterdir())
