"""What every test stands on: one cluster with the driver in it, opened once for a session."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from dra_driver.kube.cluster import ClusterApi
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import RESOURCE_CLAIMS
from e2e.clusters.interface import Ability, Cluster, ClusterError
from e2e.install import NAMESPACE, Driver
from e2e.kit.driver_pods import DriverPods
from e2e.kit.features import Features, probe, read_version
from e2e.kit.kubectl import Kubectl, find_kubectl
from e2e.kit.node_files import read_files
from e2e.kit.node_sharing import read_sharing
from e2e.kit.space import Space
from e2e.kit.waiting import NotYet, eventually

CLUSTERS = ("local", "kind", "existing")
DEFAULT_MACHINE = "a100-sxm4-40gb"
_LEFTOVER_SECONDS = 15.0
# Faults are noticed at the next reading of the hardware; the default, 10 s, is a long time for tests.
SETTINGS = ("config.hardware.rescanInterval=2s",)


@dataclass(frozen=True, slots=True)
class Options:
    """How the session wants its cluster. ``installed``: the driver is there already and stays. ``name``: not the usual
    one, beside which it runs. ``without``: feature gates that it has not. The last two are for local ones."""

    cluster: str
    kubernetes: str
    machine: str | None
    nodes: int
    keep: bool
    installed: bool
    name: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """The cluster, the ways to it, and the driver."""

    cluster: Cluster = field(repr=False)
    api: ClusterApi = field(repr=False)
    kubectl: Kubectl = field(repr=False)
    driver: Driver = field(repr=False)
    pods: DriverPods = field(repr=False)
    features: Features

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes with devices."""
        return self.driver.nodes()

    def can(self, ability: Ability) -> bool:
        return ability in self.cluster.abilities

    def install_driver(self) -> None:
        """As the session did at its beginning."""
        self.driver.install(SETTINGS)

    def leftovers(self) -> list[str]:
        """What a node still has of claims that do not exist any more; nothing where nodes cannot be looked into."""
        if not self.can(Ability.RUN_ON_NODE):
            return []
        claims = {claim["metadata"]["uid"] for claim in self.api.list(RESOURCE_CLAIMS).items}
        found = []
        for node in self.nodes:
            files = read_files(self.cluster, node)
            found += [f"CDI file of claim {uid} on {node}" for uid in sorted(files.cdi - claims)]
            found += [f"checkpoint entry of claim {uid} on {node}" for uid in sorted(files.checkpoint - claims)]
            found += [f"checkpoint on {node}: {problem}" for problem in files.problems]
            found += [f"{left} on {node}" for left in read_sharing(self.cluster, node).left_behind(claims)]
        return found

    def wait_clean(self) -> None:
        """Raises TimedOut naming what is left on which node."""

        def look() -> None:
            if left := self.leftovers():
                raise NotYet(f"left behind: {'; '.join(left)}")

        eventually(look, _LEFTOVER_SECONDS)

    @contextlib.contextmanager
    def space(self, name: str, labels: dict[str, str] | None = None) -> Iterator[Space]:
        """A namespace that leaves nothing behind."""
        space = Space(self.api, self.kubectl, name)
        space.open(labels)
        try:
            yield space
        finally:
            space.close()
        self.wait_clean()


@contextlib.contextmanager
def open_stage(options: Options) -> Iterator[Stage]:
    """Bring the cluster up and the driver in, and take both away at the end. Raises ClusterError and TimedOut."""
    with open_cluster(options) as cluster:
        api = connect(str(cluster.kubeconfig))
        kubectl = find_kubectl(options.kubernetes, cluster.kubeconfig)
        driver = Driver(cluster, api)
        if options.installed:
            driver.wait()
        else:
            driver.install(SETTINGS)
        features = probe(api, read_version(api), NAMESPACE)
        try:
            yield Stage(cluster, api, kubectl, driver, DriverPods(api, kubectl), features)
        finally:
            if not (options.installed or options.keep):
                driver.uninstall()


def open_cluster(options: Options) -> AbstractContextManager[Cluster]:
    """The session of that cluster. Raises ClusterError for a name that there is not."""
    if options.cluster not in CLUSTERS:
        raise ClusterError(f"there is no cluster {options.cluster!r}; there are {', '.join(CLUSTERS)}")
    module: Any = importlib.import_module(f"e2e.clusters.{options.cluster}")
    session: Callable[..., AbstractContextManager[Cluster]] = module.session
    # GPUs of an existing cluster are its own unless somebody asks for simulated ones.
    machine = options.machine or (None if options.cluster == "existing" else DEFAULT_MACHINE)
    local = {"name": options.name, "without": options.without}
    special = {name: value for name, value in local.items() if value}
    if special and options.cluster != "local":
        raise ClusterError(
            f"only a local cluster can have a name of its own or lack feature gates, not {options.cluster}"
        )
    return session(kubernetes=options.kubernetes, nodes=options.nodes, machine=machine, keep=options.keep, **special)


def missing_abilities(stage: Stage, wanted: Sequence[Ability]) -> str:
    """``this cluster cannot: restart a kubelet``; empty when it can do all."""
    missing = [str(ability) for ability in wanted if not stage.can(ability)]
    return f"this cluster cannot: {', '.join(missing)}" if missing else ""
