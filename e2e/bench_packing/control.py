"""The control plane under measurement, our controller in it: what its components count and what they take."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from api.mig_policy import MigPacking
from dra_driver.processes import Process
from e2e.bench_packing import read_page
from e2e.bench_packing.counts import Counts
from e2e.bench_peer.drivers import NAMESPACE, OUR_ENVIRONMENT
from e2e.bench_peer.processes import Measured, seen_from_here
from e2e.clusters.interface import ClusterError
from e2e.clusters.local.cluster import LocalCluster
from e2e.clusters.local.machine import Machine
from e2e.clusters.local.settings import API_PORT, CONTROL
from e2e.kit.waiting import NotYet, eventually

API_SERVER, SCHEDULER, CONTROLLER = "kube-apiserver", "kube-scheduler", "controller"
_PORT = 18080
_ANSWERS_SECONDS = 30.0
_PAGES = {
    API_SERVER: f"https://127.0.0.1:{API_PORT}/metrics",
    SCHEDULER: "https://127.0.0.1:10259/metrics",
    CONTROLLER: f"http://127.0.0.1:{_PORT}/metrics",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a component has counted, and its processor time in milliseconds, at one moment."""

    counts: Counts
    cpu_ms: float

    def since(self, before: Reading) -> Reading:
        return Reading(self.counts.since(before.counts), self.cpu_ms - before.cpu_ms)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Methods raise ClusterError."""

    cluster: LocalCluster

    @contextlib.contextmanager
    def controller(self, packing: MigPacking) -> Iterator[None]:
        """Ours, with nothing but the packing changed from what an installation has."""
        options = [
            f"--kubeconfig={self.cluster.settings.kubeconfig_of('admin')}",
            f"--namespace={NAMESPACE}",
            f"--mig-packing={packing}",
            f"--http-endpoint=127.0.0.1:{_PORT}",
        ]
        program = Path(sys.executable).parent / "gpu-dra-controller"
        self._machine.start(CONTROLLER, [str(program), *options], OUR_ENVIRONMENT)
        try:
            eventually(self._check_answers, _ANSWERS_SECONDS)
            yield
        finally:
            self._machine.stop(CONTROLLER, timeout=20.0)

    def read(self) -> dict[str, Reading]:
        """By component."""
        return {name: Reading(self._counts(page), self._process(name).cpu_ms()) for name, page in _PAGES.items()}

    def controller_counts(self) -> Counts:
        return self._counts(_PAGES[CONTROLLER])

    def _check_answers(self) -> None:
        self._process(CONTROLLER)
        try:
            self.controller_counts()
        except ClusterError as error:
            raise NotYet(str(error)) from error

    def _counts(self, page: str) -> Counts:
        script = str(Path(read_page.__file__))
        return Counts.parse(self._machine.run([sys.executable, script, page, self._token()]))

    def _token(self) -> str:
        token: str = yaml.safe_load(self.cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
        return token

    def _process(self, name: str) -> Measured:
        pid, inside = self._machine.pid(), self._machine.running().get(name)
        init = Process.of(pid) if pid is not None else None
        found = seen_from_here(init, inside) if init is not None and inside is not None else None
        if found is None:
            log = self.cluster.settings.logs / CONTROL / f"{name}.log"
            raise ClusterError(f"{name} has ended; its log says: {log.read_text(errors='replace')[-2000:]}")
        return Measured(name, found)

    @property
    def _machine(self) -> Machine:
        return self.cluster.machine(CONTROL)
