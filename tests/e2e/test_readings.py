"""What is read from nodes, containers, metrics and objects."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from api.claim_config import TimeSliceInterval
from dra_driver.kube.interface import Obj
from e2e.clusters.existing import runs_pods
from e2e.clusters.interface import ClusterError
from e2e.install import check_rollout, split_image
from e2e.kit import node_files, node_sharing, views
from e2e.kit.access import with_token
from e2e.kit.ghost import copied_status
from e2e.kit.metrics import failed_prepares
from e2e.kit.report import claim_line, event_lines, inventory_line, slice_line
from e2e.kit.waiting import NotYet, TimedOut, eventually, holds_for
from kubelet_plugin.prepare.checkpoint_format import encode_file

_CDI = "k8s.gpu.nvidia.com-claim_{}.yaml"


def test_node_files() -> None:
    listing = "\n".join([_CDI.format("uid-1"), "other.yaml", _CDI.format("uid-2")])
    found = node_files.parse(f"{listing}\n---\n---\n{encode_file('boot', {}).decode()}")
    assert found == node_files.NodeFiles(frozenset({"uid-1", "uid-2"}), frozenset())


def test_node_files_of_a_new_node() -> None:
    assert node_files.parse("---\n---\n") == node_files.NodeFiles(frozenset(), frozenset())


def test_a_damaged_checkpoint_is_a_problem() -> None:
    assert node_files.parse("---\n---\n{broken").problems


def test_view_of_a_container() -> None:
    view = views.parse("nvidia0\nnvidia12\nnvidia-uvm\nnvidiactl\nnull\n---\nA=1\nNVIDIA_VISIBLE_DEVICES=void\n")
    assert view.gpus == {0, 12}
    assert view.visible_devices == "void"
    assert views.parse("null\n---\nA=b=c\n").environment == {"A": "b=c"}
    assert views.parse("nvidia0\nnvidia-caps\nnvidia-cap12\nnvidia-cap13\n---\n").capabilities == {12, 13}


def test_mounts_that_a_container_sees() -> None:
    mountinfo = (
        "21 1 0:5 / / rw,relatime - overlay overlay rw\n"
        "30 21 0:40 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k\n"
        "31 30 0:41 / /dev/shm rw,nosuid,nodev - tmpfs shm rw,size=8k\n"
        "32 21 8:1 /lib/mps/a/pipe /tmp/nvidia-mps rw,nosuid,nodev master:2 - ext4 /dev/sda rw\n"
    )
    mounts = views.parse(f"null\n---\nA=1\n---\n{mountinfo}").mounts
    assert mounts["/tmp/nvidia-mps"].root == "/lib/mps/a/pipe"
    assert mounts["/dev/shm"] == views.Mount("/", frozenset({"rw", "nosuid", "nodev"}), "tmpfs")


_UID = "11111111-2222-3333-4444-555555555555"
_MPS = "/var/lib/kubelet/plugins/gpu.nvidia.com/mps"
_PROCESSES = (
    "10 /usr/bin/python3.13 /usr/local/bin/gpu-dra-mps-supervisor \n"
    "11 /usr/bin/python3.13 -m dra_driver.simulation.hardware.mps.control /s/gpus.json -d \n"
    "12 /usr/bin/python3.13 -m dra_driver.simulation.hardware.mps.server 3 \n"
    "13 /bin/sh /usr/bin/nvidia-cuda-mps-control \n"
    "14 sh -c for process in *mps*control*|*mps*server*|*mps-supervisor* \n"
    "15 nvidia-cuda-mps-control -d \n"
    "16 nvidia-cuda-mps-server \n"
)


def test_sharing_of_a_node() -> None:
    gpus = [{"uuid": "GPU-1", "computeMode": 3, "timeSlice": 0}, {"uuid": "GPU-2", "computeMode": 0, "timeSlice": 3}]
    found = node_sharing.parse(
        f"{_UID}-abcde/\nsupervisor.lock\nsupervisor.sock\n---\ntmpfs / tmpfs rw 0 0\nshm {_MPS}/{_UID}-abcde/shm tmpfs rw 0 0\n"
        f"---\n/sys/fs/cgroup/gpu-dra-mps/{_UID}-abcde/\n---\n{_PROCESSES}---\n{json.dumps({'gpus': gpus})}"
    )
    assert found == node_sharing.NodeSharing(
        groups=frozenset({f"{_UID}-abcde"}),
        tmpfs=frozenset({f"{_MPS}/{_UID}-abcde/shm"}),
        cgroups=frozenset({f"/sys/fs/cgroup/gpu-dra-mps/{_UID}-abcde/"}),
        daemons=frozenset({11, 15}),
        servers=frozenset({12, 16}),
        supervisors=frozenset({10}),
        modes={"GPU-1": node_sharing.EXCLUSIVE_PROCESS},
        intervals={"GPU-2": TimeSliceInterval.LONG},
    )
    assert not found.left_behind({_UID})
    assert found.left_behind({"another"}) == [f"folder of MPS group {_UID}-abcde", f"tmpfs {_MPS}/{_UID}-abcde/shm"]
    assert len(found.left_behind(())) == 9


def test_sharing_of_a_node_where_there_never_was_any() -> None:
    found = node_sharing.parse("---\n---\n---\n---\n")
    assert found == node_sharing.NodeSharing()
    assert not found.left_behind(())


def test_failed_prepares_are_counters_above_zero() -> None:
    text = (
        "# TYPE nvidia_dra_node_prepare_errors_total counter\n"
        'nvidia_dra_node_prepare_errors_total{error_type="DeviceInUse"} 2.0\n'
        'nvidia_dra_node_prepare_errors_total{error_type="Other"} 0.0\n'
        'nvidia_dra_node_unprepare_errors_total{error_type="Other"} 3.0\n'
    )
    assert failed_prepares(text) == ['error_type="DeviceInUse": 2.0']


def test_token_replaces_the_users_credentials() -> None:
    config = {"users": [{"name": "admin", "user": {"client-key-data": "secret"}}], "current-context": "x"}
    assert with_token(config, "t") == {"users": [{"name": "admin", "user": {"token": "t"}}], "current-context": "x"}


def test_ghosts_have_no_answer_and_uuids_of_their_own() -> None:
    real = f"GPU-{UUID(int=1)}"
    status: Obj = {"answer": "x", "machine": {"gpus": [{"uuid": real}]}}
    copies = [copied_status(status, name) for name in ("ghost", "other")]
    uuids = [copy["machine"]["gpus"][0]["uuid"] for copy in copies]
    assert [set(copy) for copy in copies] == [{"machine"}, {"machine"}]
    assert len({real, *uuids}) == 3
    assert {len(uuid) for uuid in uuids} == {len(real)}
    assert status == {"answer": "x", "machine": {"gpus": [{"uuid": real}]}}


@pytest.mark.parametrize(
    ("spec", "usable"),
    [
        ({}, True),
        ({"unschedulable": True}, False),
        ({"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}, True),
    ],
)
def test_nodes_that_run_pods(spec: Obj, usable: bool) -> None:
    assert runs_pods({"spec": spec}) is usable


def test_image_with_and_without_a_tag() -> None:
    assert split_image("localhost:5000/gpu-dra:0.1") == ("localhost:5000/gpu-dra", "0.1")
    for image in ("gpu-dra", "localhost:5000/gpu-dra"):
        with pytest.raises(ClusterError, match="no tag"):
            split_image(image)


def _daemon_set(**status: int) -> Obj:
    return {"kind": "DaemonSet", "metadata": {"name": "d", "generation": 2}, "spec": {}, "status": status}


def test_rollout_of_a_daemon_set() -> None:
    whole = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}
    check_rollout(_daemon_set(observedGeneration=2, **whole))
    with pytest.raises(NotYet, match="newest spec"):
        check_rollout(_daemon_set(observedGeneration=1, **whole))
    with pytest.raises(NotYet, match="1 available of 2"):
        check_rollout(_daemon_set(observedGeneration=2, **{**whole, "numberAvailable": 1}))
    with pytest.raises(NotYet):
        check_rollout(_daemon_set(observedGeneration=2))


def test_rollout_of_a_deployment_waits_for_the_old_pods() -> None:
    status = {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 3}
    workload = {"kind": "Deployment", "metadata": {"name": "d", "generation": 1}, "spec": {"replicas": 2}}
    with pytest.raises(NotYet, match="1 old"):
        check_rollout({**workload, "status": status})
    check_rollout({**workload, "status": {**status, "replicas": 2}})


def test_report_lines() -> None:
    event = {
        "metadata": {},
        "lastTimestamp": "2026-01-02T03:04:05Z",
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "no",
        "count": 3,
        "involvedObject": {"kind": "Pod", "name": "p"},
    }
    assert event_lines([event]) == ["03:04:05 Warning FailedScheduling pod/p x3: no"]
    claim = {"metadata": {"name": "c"}, "status": {"reservedFor": [{"name": "p"}]}}
    assert claim_line(claim) == "c: not allocated, reserved for p"
    device = {"name": "gpu-0", "taints": [{"key": "k", "effect": "NoSchedule"}]}
    pool = {"name": "n", "generation": 1, "resourceSliceCount": 1}
    assert slice_line({"metadata": {"name": "s"}, "spec": {"pool": pool, "devices": [device]}}) == (
        "s: pool n generation 1, one of 1: gpu-0[k:NoSchedule]"
    )
    assert inventory_line({"metadata": {"name": "n"}}).startswith("n: 0 GPUs, registered None")


def test_waiting_tells_what_it_saw_last() -> None:
    def look() -> None:
        raise NotYet("two of three")

    with pytest.raises(TimedOut, match="two of three"):
        eventually(look, 0.0)
    assert eventually(lambda: 5, 1.0) == 5


def test_what_must_hold_is_looked_at_until_the_end() -> None:
    seen: list[int] = []
    holds_for(lambda: seen.append(1), 0.05, poll=0.01)
    assert len(seen) > 1
