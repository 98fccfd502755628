"""A plugin's work with moments at which the process may end: an exception on the thread that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dra_driver.files import Durability, write_atomically
from kubelet_plugin.prepare.marks import Marks


class Killed(BaseException):
    """The plugin process ends here."""


@dataclass
class Clockwork:
    """Counts moments, and kills at one of them."""

    moments: int = 0
    kill_at: int = 0

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.kill_at:
            raise Killed

    def on_files(self, patch: Callable[[str, object], None]) -> None:
        """Moments around every file that the work of a claim writes, and every mark that it sets or clears."""
        patch("kubelet_plugin.prepare.checkpoint.write_atomically", self.write)
        patch("dra_driver.cdi.store.write_atomically", self.write)
        for change in (Marks.set, Marks.clear):
            patch(f"kubelet_plugin.prepare.marks.{change.__qualname__}", self._around(change))

    def _around(self, change: Callable[..., None]) -> Callable[..., None]:
        def changed(*arguments: object) -> None:
            self.moment()
            change(*arguments)
            self.moment()

        return changed

    def write(self, path: Path, data: bytes, *, mode: int = 0o644, durability: Durability = Durability.NONE) -> None:
        """In place of ``dra_driver.files.write_atomically``: a kill leaves the old content or the new one."""
        self.moment()
        write_atomically(path, data, mode=mode, durability=Durability.NONE)
        self.moment()
