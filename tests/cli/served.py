"""An embedded API over HTTP, as commands ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dra_driver.simulation.apiserver.server import ApiServer
from dra_driver.simulation.store import EmbeddedApi


@contextmanager
def served(api: EmbeddedApi, folder: Path) -> Iterator[Path]:
    """The kubeconfig, which is written into ``folder``."""
    server = ApiServer(api)
    server.start()
    path = folder / "kubeconfig"
    server.write_kubeconfig(path)
    try:
        yield path
    finally:
        server.stop()
