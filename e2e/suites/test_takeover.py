"""Pods run on while the driver under them changes from NVIDIA's to this one and back, by the steps of migration.md.

NVIDIA's driver does not run here: its state is laid down for the claims of running pods, from what it wrote on a real
node (``tests/data``). On H100s (MACHINE=h100-sxm5-80gb) MIG devices change hands, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from dra_driver.devices.naming import MigName, parse_name
from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, NAMESPACES, NotFound, Obj
from e2e.clusters.interface import Ability
from e2e.install import NAMESPACE, values
from e2e.kit.mig import read_mig
from e2e.kit.migration_page import MigrationPage
from e2e.kit.node_files import CHECKPOINT, read_cdi_file, read_files
from e2e.kit.nvidia_state import NVIDIA_CHECKPOINT, lay_down, read_nvidia
from e2e.kit.pools import profiles
from e2e.kit.space import Space, container_ids
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, claim_spec, exactly, pod
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.kinds.mig.runners import COMPUTE_INSTANCE_ID, GPU_INSTANCE_ID, UUID
from kubelet_plugin.kinds.mig.steps import COMPUTE_INSTANCE
from kubelet_plugin.prepare.checkpoint_format import decode_file
from kubelet_plugin.takeover.kubelet_claims import FILE_NAME as KUBELET_FILE
from kubelet_plugin.takeover.kubelet_claims import decode as decode_kubelet
from kubelet_plugin.takeover.nvidia_checkpoint import NvidiaState

pytestmark = [
    pytest.mark.own_install,
    pytest.mark.simulated,
    pytest.mark.hands(Ability.RUN_ON_NODE),
    pytest.mark.timeout(600, func_only=True),
]

_KUBELET_STATE = f"/var/lib/kubelet/{KUBELET_FILE}"
_PROFILE = "1g.10gb"
_IS_PROFILE = f'device.attributes["gpu.nvidia.com"].profile == "{_PROFILE}"'


@pytest.mark.last(80)
def test_pods_run_on_from_nvidias_driver_to_this_one_and_back(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    page = MigrationPage(stage)
    names = start_pods(stage, space, node)
    before = space.wait_ready(*names)
    uids = {name: claim_uid(space, name) for name in names}
    entries = our_entries(stage, node)
    assert set(entries) == set(uids.values())
    files = {uid: read_cdi_file(stage.cluster, node, uid) for uid in uids.values()}
    instances = len(read_mig(stage.pods, node).instances)
    assert instances == len([name for name in names if name.endswith("mig")])
    made = {device: each for entry in entries.values() for device, each in live(entry).items()}

    kubelet = decode_kubelet(stage.cluster.run_on_node(node, ["cat", _KUBELET_STATE]).encode())
    assert {uid: kubelet.ref(uid) for uid in entries} == {uid: entry.ref for uid, entry in entries.items()}

    # NVIDIA's driver was here: our plugin goes, and its state takes the place of ours.
    uninstall(stage, page)
    lay_down(stage.cluster, node, entries.values(), made)
    install(stage, page)
    check_taken_over(stage, node, page, uids)
    assert {uid: read_cdi_file(stage.cluster, node, uid) for uid in uids.values()} == files, "written anew, as ours"
    assert len(read_mig(stage.pods, node).instances) == instances
    check_untouched(space, before, names)
    leaving = [name for name in names if name.startswith("leaves")]
    space.delete_pods(*leaving)
    staying = [name for name in names if name not in leaving]
    eventually(lambda: check_only(stage, node, {uids[name] for name in staying}), 60)
    assert len(read_mig(stage.pods, node).instances) == instances // 2, "its instance went with its claim"

    # And back: NVIDIA's driver would find its checkpoint as it needs it.
    page.run("helm upgrade gpu-dra")
    page.run("kubectl -n gpu-dra rollout status")
    uninstall(stage, page)
    handed = read_nvidia(stage.cluster, node)
    assert page.run_on_node(node, "cat ")
    assert {claim.uid for claim in handed.claims} == {uids[name] for name in staying}
    assert {claim.state for claim in handed.claims} == {NvidiaState.COMPLETED}
    assert not our_entries(stage, node)
    check_untouched(space, before, staying)
    for device in (device for claim in handed.claims for device in claim.devices):
        if device.mig is not None:
            assert device.mig.uuid == made[device.name]["migUUID"], "NVIDIA's driver destroys what it does not know"

    # It has changed nothing, and this one comes again.
    install(stage, page)
    assert set(our_entries(stage, node)) == {uids[name] for name in staying}
    check_untouched(space, before, staying)
    space.delete_pods(*staying)
    stage.wait_clean()
    assert not read_mig(stage.pods, node).instances


def start_pods(stage: Stage, space: Space, node: str) -> list[str]:
    """Two pods with a whole GPU each, and two with a MIG device each where GPUs are partitioned on demand."""
    requests = {"gpu": exactly()}
    if _PROFILE in profiles(stage.api):
        requests["mig"] = exactly(device_class="mig.nvidia.com", selectors=[_IS_PROFILE])
    names = []
    for kind, request in requests.items():
        space.template(kind, claim_spec(request))
        for does in ("stays", "leaves"):
            names.append(f"{does}-{kind}")
            space.pod(pod(names[-1], Use(template=kind), node=node))
    return names


def claim_uid(space: Space, name: str) -> str:
    (claim,) = space.claims_of(name).values()
    return str(claim["metadata"]["uid"])


def uninstall(stage: Stage, page: MigrationPage) -> None:
    page.run("helm uninstall gpu-dra")
    page.run("kubectl -n gpu-dra wait")
    # What Helm keeps; else the next installation is told that it is another one's.
    for resource, name in ((CUSTOM_RESOURCE_DEFINITIONS, "nodeinventories.gpu-dra.dev"), (NAMESPACES, NAMESPACE)):
        with contextlib.suppress(NotFound):
            stage.api.delete(resource, name)
    stage.driver.wait_uninstalled()


def install(stage: Stage, page: MigrationPage) -> None:
    page.run("helm install gpu-dra", [*values(stage.cluster), *SETTINGS])
    page.run("kubectl -n gpu-dra rollout status")
    stage.driver.wait()


def our_entries(stage: Stage, node: str) -> Mapping[str, ClaimEntry]:
    reading = decode_file(stage.cluster.run_on_node(node, ["cat", CHECKPOINT]).encode())
    assert not reading.problems
    present = read_files(stage.cluster, node).checkpoint
    return {uid: entry for uid, entry in reading.entries.items() if uid in present}


def live(entry: ClaimEntry) -> dict[str, dict[str, Any]]:
    """The instances of a claim's MIG devices, in NVIDIA's words, by device name."""
    found: dict[str, dict[str, Any]] = {}
    for held in entry.devices:
        name = parse_name(held.prepared.device_name)
        if isinstance(name, MigName):
            made = next(step.result for step in entry.steps if step.kind == COMPUTE_INSTANCE)
            found[str(name)] = {
                "parentMinor": name.minor,
                "giId": int(made[GPU_INSTANCE_ID]),
                "ciId": int(made[COMPUTE_INSTANCE_ID]),
                "migUUID": made[UUID],
                "parentUUID": held.gpu_uuid,
            }
    return found


def check_taken_over(stage: Stage, node: str, page: MigrationPage, uids: Mapping[str, str]) -> None:
    assert set(our_entries(stage, node)) == set(uids.values())
    found = stage.cluster.run_on_node(node, ["sh", "-c", f"ls {NVIDIA_CHECKPOINT} 2>/dev/null || true"])
    assert not found.strip(), "left there, it would be taken over again"
    told = [
        event
        for event in stage.api.list(EVENTS).items
        if event["reason"] == "ClaimsTakenOver" and event["involvedObject"]["name"] == node
    ]
    assert any(all(uid in event["message"] for uid in uids.values()) for event in told)
    assert "ClaimsTakenOver" in page.run("kubectl get events --all-namespaces --field-selector reason=ClaimsTakenOver")
    incomplete = page.run("kubectl get events --all-namespaces --field-selector reason=TakeOverIncomplete")
    assert "TakeOverIncomplete" not in incomplete


def check_untouched(space: Space, before: Mapping[str, Obj], names: list[str]) -> None:
    pods = space.pods()
    for name in names:
        assert container_ids(pods[name]) == container_ids(before[name]), name
        space.check_containers(name)


def check_only(stage: Stage, node: str, uids: set[str]) -> None:
    files = read_files(stage.cluster, node)
    if files.cdi != uids or files.checkpoint != uids:
        raise NotYet(f"{node} has CDI files of {sorted(files.cdi)} and records of {sorted(files.checkpoint)}")
