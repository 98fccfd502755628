"""A kind cluster with the driver's image in it, for a suite or for a person."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from e2e.clusters import packages, programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.kind import lifecycle
from e2e.clusters.kind.cluster import KindCluster
from e2e.clusters.kind.engine import users_docker
from e2e.images import driver, workload

_MACHINE = "a100-sxm4-40gb"
_REPOSITORY = Path(__file__).resolve().parents[3]


@contextlib.contextmanager
def session(
    *,
    kubernetes: str = programs.NEWEST_KUBERNETES,
    nodes: int = 1,
    machine: str = _MACHINE,
    keep: bool = False,
    name: str = lifecycle.DEFAULT_NAME,
) -> Iterator[KindCluster]:
    """A cluster for as long as the context lasts, also when this process is killed; with ``keep`` it stays up.

    With Docker the Kubernetes version is that of kind's own node image, and ``kubernetes`` must be the newest.
    """
    with_docker = users_docker() is not None
    if with_docker and kubernetes != programs.NEWEST_KUBERNETES:
        raise ClusterError("with Docker, the node image decides: python -m e2e.clusters.kind up --node-image ...")
    with _driver_archive(with_docker=with_docker) as archive:
        cluster = lifecycle.up(
            lifecycle.Wanted(
                name=name,
                kubernetes="" if with_docker else kubernetes,
                workers=0 if nodes == 1 else nodes,
                machine=machine,
                image_archive=archive,
                guarded=None if keep else os.getpid(),
            )
        )
    try:
        if not with_docker:  # no registry to pull the examples' image from
            cluster.load_image(workload.workload_archive())
        yield cluster
    finally:
        if not keep:
            lifecycle.down(name)


@contextlib.contextmanager
def _driver_archive(*, with_docker: bool) -> Iterator[Path]:
    """Made by Docker from deploy/image/Dockerfile where there is Docker, else without."""
    if not with_docker:
        packages.ensure_packages(packages.KIND)
        yield driver.driver_archive()
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "gpu-dra.tar")
        for command in (
            ["docker", "build", "--tag", driver.reference(), "--file", "deploy/image/Dockerfile", "."],
            ["docker", "save", "--output", str(archive), driver.reference()],
        ):
            if subprocess.run(command, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, check=False).returncode:
                raise ClusterError(f"{' '.join(command)} failed")
        yield archive
