"""The API under test, three times: in memory, over HTTP to the embedded server, and over HTTP to a real one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dra_driver.embedded.apiserver import ApiServer
from dra_driver.kube.connect import connect
from dra_driver.kube.embedded import EmbeddedApi
from dra_driver.kube.interface import NAMESPACES, KubeApi
from tests.contract import real_server

_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API and names that no other test on it uses."""

    api: KubeApi
    kind: str  # embedded, http, real
    name: str  # a unique prefix for names of cluster-scoped objects
    namespace: str


@pytest.fixture(scope="session")
def real_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = real_server.find_binaries()
    if isinstance(found, str):
        pytest.skip(found)
    with real_server.running(found, tmp_path_factory.mktemp("real-apiserver")) as kubeconfig:
        yield kubeconfig


@pytest.fixture(scope="session")
def embedded_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    server = ApiServer(EmbeddedApi())
    server.start()
    path = tmp_path_factory.mktemp("embedded-apiserver") / "kubeconfig"
    server.write_kubeconfig(path)
    yield path
    server.stop()


@pytest.fixture(
    params=["embedded", "http", pytest.param("real", marks=[pytest.mark.process, pytest.mark.xdist_group("real-api")])]
)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    kind = str(request.param)
    api: KubeApi
    if kind == "embedded":
        api = EmbeddedApi()
    elif kind == "http":
        api = connect(str(request.getfixturevalue("embedded_kubeconfig")))
    else:
        api = connect(str(request.getfixturevalue("real_kubeconfig")))
    name = f"t{os.getpid()}-{next(_counter)}"
    api.create(NAMESPACES, {"metadata": {"name": name}})
    return Cluster(api, kind, name, name)
