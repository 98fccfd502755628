"""MPS on a simulated node while plugin, supervisor and daemons are killed at random points; and the supervisor alone."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.kube.interface import RESOURCE_CLAIMS
from dra_driver.mps.errors import MpsError
from dra_driver.mps.group import GroupState
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor.cgroups import PARENT
from kubelet_plugin.mps_supervisor.daemon import marked_processes
from kubelet_plugin.mps_supervisor.namespaces import Namespaces
from tests.kubelet_plugin.fakes import DRIVER, eventually, short_folder
from tests.kubelet_plugin.kinds.mps.claims import mps_for
from tests.kubelet_plugin.mps_lab import MpsLab
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE, Lab
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights
from tests.long_runs import ROUNDS

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]

STAYS, GPU = "stays", 7
DEVICES = ("gpu-0", "gpu-1", "gpu-2-mig-1g10gb-19-0", "gpu-3")
_LONGEST = 0.6  # seconds after which a round's victim is killed: longer than a prepare takes
_SECONDS_A_ROUND = 60


class Node(MpsLab):
    """Whoever is killed comes back, as kubelet and DaemonSets have it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.supervisor, self.served = self.mps.process(), self.plugin()
        self.wait_ready()
        self.start_pod(STAYS, f"gpu-{GPU}")
        self.runs(STAYS)
        self.own = self.group().group.id
        self.client = self.mps.counting(self.own)

    def kill(self, victim: str, number: int) -> None:
        match victim:
            case "plugin":
                self.served.kill()
                self.served = self.plugin(pod_uid=f"pod-{number}")
                assert self.kubelet.wait_for_plugin(DRIVER, timeout=PATIENCE)
            case "supervisor":
                self.supervisor.kill()
                self.supervisor = self.mps.process()
            case "daemon":
                for status in self.mps.client.groups():
                    daemon = Process.of(status.pid) if status.group.id != self.own and status.pid else None
                    if daemon is not None:
                        daemon.end(signal.SIGKILL, timeout=PATIENCE)

    def left(self, claim: str) -> list[str]:
        """Of anything but the pod that stays. ``claim``: UID of one that has ended."""
        mine, folder = self.mps.folders(self.own), self.mps.folder
        found = [f"group {each.group.id}" for each in self.mps.client.groups() if each.group.id != self.own]
        found += [f"mount {each}" for each in Namespaces().mounted_below(folder) if mine.root not in each.parents]
        found += [f"folder {each}" for each in folder.iterdir() if each.is_dir() and each != mine.root]
        running = {Path(root) for root in marked_processes().values() if Path(root).is_relative_to(folder)}
        found += [f"process of {root}" for root in running - {mine.root}]
        found += [f"cgroup {each}" for each in Path("/sys/fs/cgroup").rglob(f"{PARENT}/{claim}*")]
        modes = self.mps.compute_modes()
        found += [f"mode of GPU {n}" for n, mode in enumerate(modes) if mode is not ComputeMode.DEFAULT and n != GPU]
        return found + [f"{self.mig_devices()} MIG devices"] * bool(self.mig_devices())


@pytest.mark.timeout(ROUNDS * _SECONDS_A_ROUND)
def test_nothing_is_left_and_who_stays_is_never_interrupted() -> None:
    chance = random.Random(20261130)
    with short_folder() as folder:
        node = Node(folder)
        try:
            for number in range(ROUNDS):
                name, device = f"p{number}", chance.choice(DEVICES)
                node.start_pod(name, device, mps_for(device, defaultActiveThreadPercentage=50))
                claim = node.api.get(RESOURCE_CLAIMS, name, "default")["metadata"]["uid"]
                time.sleep(chance.uniform(0, _LONGEST))  # the random point
                node.kill(chance.choice(("plugin", "supervisor", "daemon")), number)
                if chance.random() < 0.5:
                    node.runs(name)
                node.delete_pod(name)
                node.client.still_counts()
                eventually(lambda: node.left(claim) == [], PATIENCE)  # noqa: B023 - called at once
            node.client.still_counts()
            node.client.end()
            node.delete_pod(STAYS)
            eventually(lambda: node.mps.left() == [], PATIENCE)
        finally:
            node.close()


@pytest.mark.timeout(ROUNDS * _SECONDS_A_ROUND)
def test_killed_at_random_while_groups_come_and_go() -> None:
    """Groups are started and stopped; the supervisor is killed at some point, another one comes; at the end nothing is
    left, and the client of a group that stayed was never interrupted."""
    chance = random.Random(20261130)
    with short_folder() as folder:
        lab = Lab(folder)
        try:
            supervisor = lab.process()
            lab.client.start(lab.group("stays", gpu=7))
            client = lab.counting("stays")
            for number in range(ROUNDS):
                working = threading.Thread(target=_come_and_go, args=(lab, number % 7))
                working.start()
                working.join(chance.uniform(0, 0.4))
                supervisor.kill()
                working.join(PATIENCE)
                assert not working.is_alive()
                client.still_counts()
                supervisor = lab.process()
            client.still_counts()
            lab.wait_for(GroupState.READY, "stays")
            for status in lab.client.groups():
                lab.client.stop(status.group.id)
            eventually(lambda: lab.left() == [], PATIENCE)
        finally:
            lab.close()


def _come_and_go(lab: Lab, gpu: int) -> None:
    """A start and a stop; the supervisor may be gone in the middle of either."""
    try:
        lab.client.start(lab.group(f"claim-{gpu}", gpu=gpu))
        lab.client.stop(f"claim-{gpu}")
    except MpsError:
        return
