"""The real node under measurement: its simulated GPUs, processes on it, and what a driver leaves there.

Both drivers run in one mount namespace of the node where sysfs and procfs show the simulated GPUs, as they show those
of a real machine: a program that looks there itself, and not below a root that it is told, finds them too.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dra_driver.kube.interface import NODE_INVENTORIES, RESOURCE_SLICES, KubeApi, NotFound
from dra_driver.processes import Process
from e2e.bench_peer.drivers import CDI_FOLDER, Program, Surroundings
from e2e.bench_peer.libraries import make_real
from e2e.bench_peer.processes import Measured, seen_from_here
from e2e.clusters.interface import ClusterError
from e2e.clusters.local.cluster import LocalCluster
from e2e.clusters.local.machine import Machine
from e2e.kit.pools import driver_slices
from e2e.kit.waiting import NotYet, eventually

PROGRAMS = Path(sys.executable).parent
_SIMULATED = "/var/lib/gpu-dra/simulated"
_ROOT = f"{_SIMULATED}/host"
_KUBELET = "/var/lib/kubelet"
_PLUGIN_FOLDER = "plugins/gpu.nvidia.com"
_VIEW = "view"
_PATIENCE = 30.0
_SHOWN = 3000
# Private first, so that the node itself keeps its own; what a driver mounts elsewhere is still seen by the node.
_MOUNTS = f"""set -e
mount --make-rprivate /sys
mount --make-rprivate /proc
mkdir -p {_ROOT}/sys/devices/system
mount --bind /sys/devices/system {_ROOT}/sys/devices/system
mount --rbind {_ROOT}/sys/devices /sys/devices
mount --bind {_ROOT}/sys/bus/pci /sys/bus/pci
mount --bind {_ROOT}/proc/devices /proc/devices
mount --bind {_ROOT}/proc/driver /proc/driver
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class BenchNode:
    """The one node of ``cluster``. Methods raise ClusterError, or TimedOut for what does not come."""

    cluster: LocalCluster
    api: KubeApi

    @property
    def name(self) -> str:
        return self.cluster.nodes[0]

    @property
    def around(self) -> Surroundings:
        return Surroundings(self.name, _ROOT, str(self.cluster.settings.kubeconfig_of("admin")))

    @property
    def kubelet_log(self) -> Path:
        return self._log("kubelet")

    def make_machine(self) -> None:
        """The simulated machine with its file tree and the C library in it, and the view of it."""
        command = [str(PROGRAMS / "gpu-dra"), "machine", "create", "--machine", self.cluster.settings.machine]
        self.cluster.run_on_node(self.name, [*command, "--seed", self.name, "--folder", _SIMULATED], timeout=330)
        make_real(self.cluster.settings.machine_folder(self.name) / "gpu-dra/simulated/host")
        view = ["/usr/bin/unshare", "--mount", "--propagation", "unchanged", "sh", "-c", _MOUNTS]
        self._machine.start(_VIEW, view)
        eventually(self._check_view, _PATIENCE)

    def start(self, program: Program) -> Measured:
        inside = self._machine.running().get(_VIEW)
        if inside is None:
            raise ClusterError(f"the view of the simulated GPUs has ended; see {self._log(_VIEW)}")
        enter = ["/usr/bin/nsenter", f"--mount=/proc/{inside}/ns/mnt", "--"]
        self._machine.start(program.name, [*enter, *program.command], program.environment)
        return Measured(program.name, self._process(program.name))

    def stop(self, name: str) -> None:
        """With SIGTERM, and SIGKILL for one that does not heed it."""
        self._machine.stop(name, timeout=20.0)

    def check_runs(self, name: str) -> None:
        """Raises ClusterError with the end of its log when the process has ended."""
        if name not in self._machine.running():
            raise ClusterError(f"{name} has ended: {self._tail(name)}")

    def can_run(self, program: Path) -> bool:
        """Whether the node sees that program: it has folders of its own at /run and /var/lib."""
        try:
            self.cluster.run_on_node(self.name, ["test", "-x", str(program)])
        except ClusterError:
            return False
        return True

    def forget(self) -> None:
        """Take away what a driver has left: objects, checkpoint, sockets, CDI files."""
        with contextlib.suppress(NotFound):
            self.api.delete(NODE_INVENTORIES, self.name)
        eventually(self._delete_slices, _PATIENCE)
        shutil.rmtree(self.outside(f"{_KUBELET}/{_PLUGIN_FOLDER}"), ignore_errors=True)
        for file in self.cdi_folder.glob("*"):
            file.unlink()

    def outside(self, path: str) -> Path:
        """Where a path of the kubelet's folder on the node is from here."""
        folder = self.cluster.settings.machine_folder(self.name) / "kubelet"
        return folder / Path(path).relative_to(_KUBELET)

    def registration_sockets(self) -> Sequence[Path]:
        return sorted(self.outside(f"{_KUBELET}/plugins_registry").glob("*.sock"))

    @property
    def cdi_folder(self) -> Path:
        """As seen from here, through the root of the node's process 1; its /var/run is a link that would lead out."""
        return Path(f"/proc/{self._init.pid}/root{CDI_FOLDER.replace('/var/run', '/run')}")

    def cdi_files(self) -> dict[str, object]:
        """Content by name."""
        return {file.name: yaml.safe_load(file.read_text()) for file in sorted(self.cdi_folder.glob("*"))}

    def log_tail(self, names: Sequence[str]) -> str:
        """The ends of the logs of those programs that have one."""
        return "\n".join(f"--- {name}\n{self._tail(name)}" for name in names if self._log(name).exists())

    def _delete_slices(self) -> None:
        for entry in driver_slices(self.api, self.name):
            with contextlib.suppress(NotFound):
                self.api.delete(RESOURCE_SLICES, entry["metadata"]["name"])
        if left := driver_slices(self.api, self.name):
            raise NotYet(f"{len(left)} ResourceSlices are still there")

    def _check_view(self) -> None:
        # The last of the mounts.
        if not Path(f"/proc/{self._process(_VIEW).pid}/root/proc/driver/nvidia/version").exists():
            raise NotYet(f"sysfs and procfs do not show the simulated GPUs; see {self._log(_VIEW)}")

    def _process(self, name: str) -> Process:
        pid = self._machine.running().get(name)
        found = seen_from_here(self._init, pid) if pid is not None else None
        if found is None:
            raise ClusterError(f"{name} ended at its start: {self._tail(name)}")
        return found

    @property
    def _machine(self) -> Machine:
        return self.cluster.machine(self.name)

    @property
    def _init(self) -> Process:
        pid = self._machine.pid()
        found = Process.of(pid) if pid is not None else None
        if found is None:
            raise ClusterError(f"node {self.name} is down")
        return found

    def _log(self, name: str) -> Path:
        return self.cluster.settings.logs / self.name / f"{name}.log"

    def _tail(self, name: str) -> str:
        try:
            return self._log(name).read_text(errors="replace")[-_SHOWN:].strip() or "its log is empty"
        except FileNotFoundError:
            return "it has no log"
