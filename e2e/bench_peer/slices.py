"""What a node's driver publishes, as a watch tells it: what is there, since when it is whole, and every write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from dra_driver.allocator.pools import pools_from_slices
from dra_driver.kube.interface import RESOURCE_SLICES, EventType, KubeApi, Obj, WatchEvent
from e2e.clusters.interface import ClusterError
from e2e.kit.recording import following

GPUS = 8


@dataclass(slots=True)
class SliceWatch:
    """Grows while it follows. Times are those of ``time.monotonic``."""

    slices: dict[str, Obj] = field(default_factory=dict)
    writes: int = 0
    deletions: int = 0
    whole_since: float | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def see(self, event: WatchEvent) -> None:
        now, name = time.monotonic(), event.object["metadata"]["name"]
        with self._changed:
            self.writes += 1
            if event.type is EventType.DELETED:
                self.deletions += 1
                self.slices.pop(name, None)
            else:
                self.slices[name] = event.object
            if not is_whole(self.slices):
                self.whole_since = None
            elif self.whole_since is None:
                self.whole_since = now
            self._changed.notify_all()

    def wait_whole(self, timeout: float) -> float:
        """The moment from which on every GPU is published in a pool that counts. ClusterError when it does not come."""
        with self._changed:
            self._changed.wait_for(lambda: self.whole_since is not None, timeout)
            if self.whole_since is None:
                devices = sum(len(entry["spec"].get("devices") or ()) for entry in self.slices.values())
                raise ClusterError(
                    f"after {timeout:g} s not every GPU is published: {len(self.slices)} slices, {devices} devices"
                )
            return self.whole_since

    def wait_deletion(self, known: int, timeout: float) -> bool:
        """Until there were more deletions than ``known``; False when none comes."""
        with self._changed:
            return self._changed.wait_for(lambda: self.deletions > known, timeout)


@contextmanager
def watching(api: KubeApi, node: str) -> Iterator[SliceWatch]:
    """What is there already is not seen: begin when there is nothing, or ask for writes only."""
    found = SliceWatch()
    with following(api, RESOURCE_SLICES, found.see, field_selector=f"spec.nodeName={node}"):
        yield found


def is_whole(slices: Mapping[str, Obj]) -> bool:
    """One pool without a problem, with a device for every GPU at least."""
    pools = pools_from_slices(slices.values())
    return len(pools) == 1 and not pools[0].problem and len(pools[0].devices) >= GPUS
