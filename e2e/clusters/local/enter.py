"""``python -m e2e.clusters.local.enter <cgroup> <command>...``: become ``command`` inside the cgroup subtree."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from e2e.clusters.local import cgroups


def main(arguments: Sequence[str]) -> None:
    cgroups.enter(arguments[0], os.getpid())
    os.execvp(arguments[1], list(arguments[1:]))  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
