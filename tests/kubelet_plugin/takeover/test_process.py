"""The plugin as a process on a node that NVIDIA's driver has left, with a kubelet that keeps its claims, and back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.cdi.store import CdiStore
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS
from kubelet_plugin.prepare.checkpoint import read_folder
from kubelet_plugin.takeover.nvidia_checkpoint import NvidiaState, decode
from tests.kubelet_plugin.fakes import DRIVER, eventually
from tests.kubelet_plugin.node_lab import NodeLab, PluginProcess
from tests.kubelet_plugin.takeover.nvidia import finished, kubelet_file, leave, leave_cdi

pytestmark = pytest.mark.process


class ChangingLab(NodeLab):
    """A lab whose drivers change."""

    @property
    def folder(self) -> Path:
        return Path(self.kubelet.plugins_dir) / DRIVER

    @property
    def cdi(self) -> CdiStore:
        return CdiStore(self.cluster.cdi_dir)

    @property
    def nvidia_file(self) -> Path:
        return self.folder / "checkpoint.json"

    def kubelet_says(self, *uids: str) -> None:
        """A kubelet's own record where the plugin sees it, below the host's root."""
        file = self.host / str(self.folder.parents[1] / "dra_manager_state").lstrip("/")
        file.parent.mkdir(parents=True)
        file.write_bytes(kubelet_file(*uids))

    def claims(self) -> set[str]:
        """UIDs in our checkpoint."""
        return set(read_folder(self.folder / "gpu-dra").entries)

    def run_pod(self, name: str) -> str:
        """A pod with a claim on gpu-0, until it runs; the claim's UID."""
        self.cluster.claim(name)
        self.cluster.pod(name, name)
        eventually(lambda: self.cluster.phase(name) == "Running", timeout=20)
        return str(self.api.get(RESOURCE_CLAIMS, name, "default")["metadata"]["uid"])

    def delete_pod(self, name: str) -> None:
        self.api.delete(PODS, name, "default")
        eventually(lambda: self.cluster.gone(name), timeout=20)

    def begin(self, pod_uid: str, *extra: str) -> PluginProcess:
        plugin = self.plugin(*extra, pod_uid=pod_uid)
        self.wait_ready()
        return plugin

    def end(self, plugin: PluginProcess) -> None:
        assert plugin.terminate() == 0
        eventually(lambda: not self.kubelet.wait_for_plugin(DRIVER, timeout=0.01), timeout=20)


@pytest.fixture
def lab(root: Path) -> Iterator[ChangingLab]:
    lab = ChangingLab(root)
    yield lab
    lab.close()


def test_a_running_pods_claim_comes_from_nvidias_driver_and_goes_back(lab: ChangingLab) -> None:
    plugin = lab.begin("pod-1")
    uid = lab.run_pod("runs")
    lab.end(plugin)
    gpu = lab.status()["machine"]["gpus"][0]["uuid"]
    shutil.rmtree(lab.folder / "gpu-dra")
    leave(lab.folder, lab.cdi, [finished(uid, "gpu-0", gpu)], Sysfs(lab.host).boot_id())

    plugin = lab.begin("pod-2", "--hand-over")
    (told,) = lab.events("ClaimsTakenOver")
    assert told["message"] == f"claims taken over from NVIDIA's driver: {uid}"
    assert lab.claims() == {uid}
    assert not lab.nvidia_file.exists()
    lab.end(plugin)

    found = decode(lab.nvidia_file.read_bytes(), DRIVER)
    assert [(claim.uid, claim.state) for claim in found.claims] == [(uid, NvidiaState.COMPLETED)]
    assert found.claims[0].devices[0].gpu_uuid == gpu
    assert lab.claims() == set()
    assert lab.cdi.claim_uids() == (uid,)
    assert lab.cluster.phase("runs") == "Running"

    lab.begin("pod-3")
    assert lab.claims() == {uid}
    lab.delete_pod("runs")
    assert lab.claims() == set()
    assert lab.cdi.claim_uids() == ()


@pytest.mark.parametrize("has_our_folder", [False, True])
def test_before_claims_are_taken_over_nothing_is_said_to_be_damaged(lab: ChangingLab, has_our_folder: bool) -> None:
    """The hardware is read before that, and whoever judges it asks whose its MIG instances are."""
    (lab.folder / "gpu-dra" if has_our_folder else lab.folder).mkdir(parents=True)
    leave(lab.folder, lab.cdi, [finished("uid-1", "gpu-0", "GPU-0")], Sysfs(lab.host).boot_id())
    plugin = lab.begin("pod-1")
    assert lab.claims() == {"uid-1"}
    assert eventually(lambda: lab.events("ClaimsTakenOver"))
    assert not lab.events("CheckpointDamaged")
    lab.end(plugin)
    assert not [line for line in plugin.output().splitlines() if " WARNING " in line or " ERROR " in line]


def test_files_of_nvidias_driver_survive_the_start_beside_our_empty_checkpoint(lab: ChangingLab) -> None:
    plugin = lab.begin("pod-1")
    lab.run_pod("first")
    lab.delete_pod("first")
    lab.end(plugin)
    assert (lab.folder / "gpu-dra/checkpoint.json").exists()
    leave_cdi(lab.cdi, "theirs", "gpu-1")
    content = lab.cdi.path("theirs").read_bytes()
    lab.kubelet_says("theirs")
    lab.begin("pod-2")
    (told,) = lab.events("ClaimsTakenOver")
    assert told["message"].endswith("held until they are unprepared: team/claim-theirs:theirs")
    assert lab.cdi.claim_uids() == ("theirs",)
    assert lab.cdi.path("theirs").read_bytes() == content
    assert lab.claims() == {"theirs"}


def test_a_damaged_file_of_nvidias_driver_is_told_and_the_plugin_serves(lab: ChangingLab) -> None:
    lab.folder.mkdir(parents=True, exist_ok=True)
    lab.nvidia_file.write_bytes(b'{"checksum":1,"v1":{"preparedClaims"')
    lab.begin("pod-1")
    (told,) = lab.events("TakeOverIncomplete")
    assert f"checkpoint {lab.nvidia_file} of NVIDIA's driver cannot be used: it is not whole JSON" in told["message"]
    lab.run_pod("runs")
