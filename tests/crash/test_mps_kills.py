"""MPS on a simulated node while plugin, supervisor and daemons are killed at random points; and the supervisor alone."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.kube.interface import RESOURCE_CLAIMS
from dra_driver.mps.errors import MpsError
from dra_driver.mps.group import GroupState
from dra_driver.processes import Process
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from kubelet_plugin.kinds.fence.namespaces import share_name
from kubelet_plugin.kinds.fractions import fractions_group
from kubelet_plugin.memory_fence.room import FOLDER
from kubelet_plugin.mps_supervisor.cgroups import PARENT
from kubelet_plugin.mps_supervisor.daemon import marked_processes
from kubelet_plugin.mps_supervisor.namespaces import Namespaces
from kubelet_plugin.prepare.checkpoint import STATE_FOLDER, read_folder
from tests.cgroup_tree import plain_tree
from tests.kubelet_plugin.fakes import DRIVER, eventually, short_folder
from tests.kubelet_plugin.kinds.mps.claims import mps_for
from tests.kubelet_plugin.mps_lab import MpsLab
from tests.kubelet_plugin.mps_supervisor.lab import NAMED_DRIVER, PATIENCE, Lab
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights
from tests.long_runs import ROUNDS

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]

STAYS, GPU = "stays", 7
SHARE_STAYS, SHARED_GPU, OTHER_SHARED_GPU = "share-stays", 4, 5
DEVICES = ("gpu-0", "gpu-1", "gpu-2-mig-1g10gb-19-0", "gpu-3")
FRACTIONS = (f"gpu-{SHARED_GPU}", f"gpu-{OTHER_SHARED_GPU}")
_LONGEST = 0.6  # seconds after which a round's victim is killed: longer than a prepare takes
_SECONDS_A_ROUND = 60


class Node(MpsLab):
    """Whoever is killed comes back, as kubelet and DaemonSets have it. Two pods stay: one has a GPU through MPS, one a
    fraction of another GPU, fenced by a namespace."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, NAMED_DRIVER)
        use_hierarchy(self.state, plain_tree(root / "cgroup"))
        minors = (SHARED_GPU, OTHER_SHARED_GPU)
        self._config = self.offering_fractions(minors)
        self.supervisor, self.served = self.mps.process(), self.plugin(self._config)
        self.wait_ready()
        self.wait_measured(minors)
        self.start_pod(STAYS, f"gpu-{GPU}")
        self.runs(STAYS)
        whole = self.group().group.id
        share_id = str(uuid.UUID(int=1))
        self.start_pod_with_share(SHARE_STAYS, f"gpu-{SHARED_GPU}", share_id)
        self.runs(SHARE_STAYS)
        self.shared = fractions_group(self.mps.uuids[SHARED_GPU], f"gpu-{SHARED_GPU}")
        self.share = share_name(share_id)
        self.own = {whole, self.shared}
        assert {each.group.id for each in self.mps.client.groups()} == self.own
        self._namespaces = self._namespace_folders()
        assert self.share in self._namespaces
        self.clients = [self.mps.counting(whole), self.mps.counting(self.shared, share=self.share)]

    def start(self, name: str, chance: random.Random) -> None:
        device = chance.choice((*DEVICES, *FRACTIONS))
        if device in FRACTIONS:
            self.start_pod_with_share(name, device, str(uuid.UUID(int=chance.getrandbits(128))))
        else:
            self.start_pod(name, device, mps_for(device, defaultActiveThreadPercentage=50))

    def kill(self, victim: str, number: int) -> None:
        match victim:
            case "plugin":
                self.served.kill()
                self.served = self.plugin(self._config, pod_uid=f"pod-{number}")
                assert self.kubelet.wait_for_plugin(DRIVER, timeout=PATIENCE)
            case "supervisor":
                self.supervisor.kill()
                self.supervisor = self.mps.process()
            case "daemon":
                for status in self.mps.client.groups():
                    daemon = Process.of(status.pid) if status.group.id not in self.own and status.pid else None
                    if daemon is not None:
                        daemon.end(signal.SIGKILL, timeout=PATIENCE)

    def left(self, claim: str) -> list[str]:
        """Of anything but the pods that stay. ``claim``: UID of one that has ended."""
        mine, folder = {self.mps.folders(each).root for each in self.own}, self.mps.folder
        found = [f"group {each.group.id}" for each in self.mps.client.groups() if each.group.id not in self.own]
        found += [f"share {name}" for name in self._shares() if name != self.share]
        found += [f"namespace {name}" for name in self._namespace_folders() - self._namespaces]
        found += [f"mount {each}" for each in Namespaces().mounted_below(folder) if not mine & set(each.parents)]
        found += [f"folder {each}" for each in folder.iterdir() if each.is_dir() and each not in mine]
        running = {Path(root) for root in marked_processes().values() if Path(root).is_relative_to(folder)}
        found += [f"process of {root}" for root in running - mine]
        found += [f"cgroup {each}" for each in Path("/sys/fs/cgroup").rglob(f"{PARENT}/{claim}*")]
        stay = (GPU, SHARED_GPU)
        modes = self.mps.compute_modes()
        found += [
            f"mode of GPU {n}" for n, mode in enumerate(modes) if mode is not ComputeMode.DEFAULT and n not in stay
        ]
        found += [f"file {each}" for each in self.cluster.cdi_dir.iterdir() if claim in each.name]
        found += [f"record of memory limits {each}" for each in (self.mps.plugin_folder / FOLDER / "records").iterdir()]
        found += ["entry of the checkpoint"] * (claim in read_folder(self.mps.plugin_folder / STATE_FOLDER).entries)
        return found + [f"{self.mig_devices()} MIG devices"] * bool(self.mig_devices())

    def still_count(self) -> None:
        for client in self.clients:
            client.still_counts()

    def _shares(self) -> set[str]:
        return {each.share.name for status in self.mps.client.groups() for each in status.shares}

    def _namespace_folders(self) -> set[str]:
        return {each.name for each in self.mps.folders(self.shared).server.iterdir() if each.is_dir()}


@pytest.mark.timeout(ROUNDS * _SECONDS_A_ROUND)
def test_nothing_is_left_and_who_stays_is_never_interrupted() -> None:
    chance = random.Random(20261130)
    with short_folder() as folder:
        node = Node(folder)
        try:
            for number in range(ROUNDS):
                name = f"p{number}"
                node.start(name, chance)
                claim = node.api.get(RESOURCE_CLAIMS, name, "default")["metadata"]["uid"]
                time.sleep(chance.uniform(0, _LONGEST))  # the random point
                node.kill(chance.choice(("plugin", "supervisor", "daemon")), number)
                if chance.random() < 0.5:
                    node.runs(name)
                node.delete_pod(name)
                node.still_count()
                eventually(lambda: node.left(claim) == [], PATIENCE)  # noqa: B023 - called at once
            node.still_count()
            for client in node.clients:
                client.end()
            node.delete_pod(STAYS)
            node.delete_pod(SHARE_STAYS)
            eventually(lambda: node.mps.left() == [], PATIENCE)
        finally:
            node.close()


@pytest.mark.timeout(ROUNDS * _SECONDS_A_ROUND)
def test_killed_at_random_while_groups_and_shares_come_and_go() -> None:
    """Groups are started and stopped, and shares of one that stays are made and removed; the supervisor is killed at
    some point, another one comes; at the end nothing is left, and clients of what stayed were never interrupted."""
    chance = random.Random(20261130)
    with short_folder() as folder:
        lab = Lab(folder, driver=NAMED_DRIVER)
        try:
            supervisor = lab.process()
            lab.client.start(lab.group("stays", gpu=7))
            lab.client.start(lab.named_group("shared", (6,)))
            lab.client.put_share("shared", lab.share("stays", gpu=6))
            clients = [lab.counting("stays"), lab.counting("shared", share="stays")]
            for number in range(ROUNDS):
                working = threading.Thread(target=_come_and_go, args=(lab, number))
                working.start()
                working.join(chance.uniform(0, 0.4))
                supervisor.kill()
                working.join(PATIENCE)
                assert not working.is_alive()
                for client in clients:
                    client.still_counts()
                supervisor = lab.process()
            for client in clients:
                client.still_counts()
            lab.wait_for(GroupState.READY, "stays")
            lab.wait_for(GroupState.READY, "shared")
            _only_what_stays(lab)
            for status in lab.client.groups():
                lab.client.stop(status.group.id)
            eventually(lambda: lab.left() == [], PATIENCE)
        finally:
            lab.close()


def _come_and_go(lab: Lab, number: int) -> None:
    """A start and a stop, or a share that is made and removed; the supervisor may be gone in the middle of any."""
    gpu = number % 6
    group, share = f"claim-{gpu}", f"s{gpu}"
    try:
        match number % 3:
            case 0:
                lab.client.start(lab.group(group, gpu=gpu))
                lab.client.stop(group)
            case 1:
                lab.client.start(lab.named_group(group, (gpu,)))
                lab.client.put_share(group, lab.share(share, gpu=gpu))
                lab.client.stop(group)
            case _:
                lab.client.put_share("shared", lab.share(share, gpu=6))
                lab.client.remove_share("shared", share)
    except MpsError:
        return


def _only_what_stays(lab: Lab) -> None:
    """Shares whose removal was cut short are removed; then the group has one, and the daemon no other namespace."""
    (shared,) = (each for each in lab.client.groups() if each.group.id == "shared")
    for each in shared.shares:
        if each.share.name != "stays":
            lab.client.remove_share("shared", each.share.name)
    (shared,) = (each for each in lab.client.groups() if each.group.id == "shared")
    assert [(each.share.name, each.message) for each in shared.shares] == [("stays", "")]
    listed = " ".join(lab.mps_control("namespace", "list", "--server=gpus", group_id="shared"))
    assert "stays" in listed
    assert not [name for name in listed.split() if name.startswith("s") and name[1:].isdigit()], listed
