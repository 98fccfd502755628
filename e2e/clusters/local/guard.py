"""``python -m e2e.clusters.local.guard <pid> <cluster>``: takes the cluster down when process ``pid`` has ended.

A test run that is killed cannot clean up after itself; this process, in a session of its own, can. It waits on a pidfd
(pidfd_open(2)), so it costs nothing and cannot mistake another process for the one it waits for.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

from e2e.clusters.local.cluster import LocalCluster


def main(arguments: Sequence[str]) -> None:
    try:
        descriptor = os.pidfd_open(int(arguments[0]))
    except ProcessLookupError:
        descriptor = None
    if descriptor is not None:
        select.select([descriptor], [], [])
    LocalCluster.down(arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
