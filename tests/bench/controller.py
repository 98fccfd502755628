"""What a large cluster costs the controller: ``make bench`` runs it, ``python -m tests.bench.controller`` alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.bench import many_nodes
from tests.bench.many_nodes import Figures
from tests.bench.node import AS_IN_THE_IMAGE
from tests.bench.report import Row, table

NODES = 5000


def rows(count: int = NODES) -> Iterator[Row]:
    """A controller that starts where ``count`` nodes of H100s are published and nothing has to be written."""
    command = [sys.executable, "-m", many_nodes.__name__, str(count)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **AS_IN_THE_IMAGE}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = Figures(**json.loads(done.stdout))
    yield Row(f"a look at a node of {found.devices} devices, CPU", [found.node_ms], "ms")
    yield Row(f"start with {count:,} such nodes: all objects known", [found.listed_s], "s")
    yield Row("  all nodes looked at", [found.looked_at_s], "s")
    yield Row("  RSS then", [found.rss_mib], "MiB", 400)


if __name__ == "__main__":
    print(table(list(rows())))
