"""An embedded API server in a process of its own, as a real one would be: ``python -m tests.bench.api_process FOLDER``.

Writes FOLDER/kubeconfig, prints "ready" and serves until its standard input is closed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dra_driver.simulation.apiserver.server import ApiServer
from dra_driver.simulation.store import EmbeddedApi


def main() -> None:
    server = ApiServer(EmbeddedApi())
    server.start()
    server.write_kubeconfig(Path(sys.argv[1]) / "kubeconfig")
    print("ready", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
