"""Programs of others on a node, started as on a machine whose GPUs are the simulated ones. Needs RUN_ON_NODE.

In a mount namespace of its own such a program finds /sys and /proc/driver of the simulated driver's tree: NVIDIA's
programs read both by those names. It dies with the node, like all that runs there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dra_driver.simulation.hardware.host_root import LIBRARY_FOLDER
from e2e.clusters.interface import Cluster, ClusterError
from e2e.kit.driver_pods import STATE
from e2e.kit.waiting import NotYet, TimedOut, eventually

HOST = str(Path(STATE).parent / "host")
LIBRARIES = f"{HOST}/{LIBRARY_FOLDER}"
_FOLDER = "/run/e2e-programs"
_STOP_SECONDS = 15.0
_SHOWN = "40"  # lines of a program's output
_INSIDE = 'mount --bind "$0/sys" /sys && mount --bind "$0/proc/driver" /proc/driver && exec "$@"'
# A shell's job leads no process group, so setsid and what follows become the program without another fork.
_START = """
mkdir -p "$0"
setsid "$@" >"$0/output" 2>&1 </dev/null &
echo $! >"$0/pid"
"""


@dataclass(frozen=True, slots=True)
class NodeProgram:
    """One that runs until it is stopped."""

    cluster: Cluster
    node: str
    name: str

    def runs(self) -> bool:
        check = f'pid=$(cat "{self._folder}/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && echo runs || true'
        return bool(self._shell(check).strip())

    def output(self) -> str:
        """The last lines of what it said; nothing once it is stopped."""
        return self._shell(f'tail -n {_SHOWN} "{self._folder}/output" 2>/dev/null || true')

    def stop(self) -> None:
        """SIGTERM, and its files go. Raises TimedOut when it does not end by itself; then it is killed."""
        try:
            self._signal("TERM")
            eventually(self._check_ended, _STOP_SECONDS)
        except TimedOut:
            self._signal("KILL")
            raise
        finally:
            self.cluster.run_on_node(self.node, ["rm", "-rf", self._folder])

    def _check_ended(self) -> None:
        if self.runs():
            raise NotYet(f"{self.name} on {self.node} does not end; it says:\n{self.output()}")

    def _signal(self, name: str) -> None:
        self._shell(f'kill -{name} "$(cat {self._folder}/pid)" 2>/dev/null || true')

    def _shell(self, text: str) -> str:
        return self.cluster.run_on_node(self.node, ["sh", "-c", text])

    @property
    def _folder(self) -> str:
        return f"{_FOLDER}/{self.name}"


def on_simulated_gpus(command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` on a node's simulated GPUs."""
    return on_gpus_of(Path(HOST), command)


def on_gpus_of(root: Path, command: Sequence[str]) -> list[str]:
    """On those whose tree is ``root``. Needs root."""
    return ["unshare", "--mount", "sh", "-c", _INSIDE, str(root), *command]


def has_nvml(cluster: Cluster, node: str) -> bool:
    """Whether a program can load libnvidia-ml: it is a library where the node was set up with a C compiler."""
    try:
        head = cluster.run_on_node(node, ["head", "-c", "4", f"{LIBRARIES}/libnvidia-ml.so.1"])
    except ClusterError:
        return False
    return head == "\x7fELF"


@contextlib.contextmanager
def running(cluster: Cluster, node: str, name: str, command: Sequence[str]) -> Iterator[NodeProgram]:
    """``command`` on the node's simulated GPUs, for as long as the context lasts."""
    program = NodeProgram(cluster, node, name)
    folder = f"{_FOLDER}/{name}"
    cluster.run_on_node(node, ["sh", "-c", _START, folder, *on_simulated_gpus(command)])
    try:
        yield program
    finally:
        program.stop()
