"""``python -m e2e.clusters.local.guard <pid> <cluster>``: takes the cluster down when process ``pid`` has ended.

A test run that is killed cannot clean up after itself; this process, in a session of its own, can.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from e2e.clusters.local.cluster import LocalCluster
from e2e.clusters.processes import wait_for_end


def main(arguments: Sequence[str]) -> None:
    wait_for_end(int(arguments[0]))
    LocalCluster.down(arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
