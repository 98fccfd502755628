"""The API under test: in memory, over HTTP to the embedded server, and over HTTP to a real one of each minor."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import NAMESPACES, KubeApi
from dra_driver.simulation.apiserver.server import ApiServer
from dra_driver.simulation.store import EmbeddedApi
from e2e.clusters import programs
from tests.contract import real_server

_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API and names that no other test on it uses."""

    api: KubeApi
    kind: str  # embedded, http, real
    name: str  # a unique prefix for names of cluster-scoped objects
    namespace: str
    minor: str = ""  # of a real one

    @property
    def is_older(self) -> bool:
        """Whether it is an older Kubernetes than the one that the embedded API is like."""
        return self.minor not in ("", programs.NEWEST_KUBERNETES)


class RealServers:
    """Real API servers by Kubernetes minor, each started when the first test asks for it."""

    def __init__(self, stack: contextlib.ExitStack, make_folder: Callable[[str], Path]) -> None:
        self._stack = stack
        self._make_folder = make_folder
        self._kubeconfigs: dict[str, Path] = {}

    def kubeconfig(self, minor: str) -> Path:
        """Skips the test where that minor is not built."""
        if minor not in self._kubeconfigs:
            found = real_server.find_binaries(minor)
            if isinstance(found, str):
                pytest.skip(found)
            folder = self._make_folder(f"real-apiserver-{minor}")
            self._kubeconfigs[minor] = self._stack.enter_context(real_server.running(found, folder))
        return self._kubeconfigs[minor]


# Not for the session: they cost processor time for as long as they run.
@pytest.fixture(scope="package")
def real_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServers]:
    with contextlib.ExitStack() as stack:
        yield RealServers(stack, tmp_path_factory.mktemp)


@pytest.fixture(scope="session")
def embedded_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    server = ApiServer(EmbeddedApi())
    server.start()
    path = tmp_path_factory.mktemp("embedded-apiserver") / "kubeconfig"
    server.write_kubeconfig(path)
    yield path
    server.stop()


def _real(minor: str) -> object:
    return pytest.param(f"real-{minor}", marks=[pytest.mark.process, pytest.mark.xdist_group(f"real-api-{minor}")])


@pytest.fixture(params=["embedded", "http", *(_real(minor) for minor in programs.kubernetes_minors())])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    kind, _, minor = str(request.param).partition("-")
    api: KubeApi
    if kind == "embedded":
        api = EmbeddedApi()
    elif kind == "http":
        api = connect(str(request.getfixturevalue("embedded_kubeconfig")))
    else:
        servers: RealServers = request.getfixturevalue("real_servers")
        api = connect(str(servers.kubeconfig(minor)))
    name = f"t{os.getpid()}-{next(_counter)}"
    api.create(NAMESPACES, {"metadata": {"name": name}})
    return Cluster(api, kind, name, name, minor)
