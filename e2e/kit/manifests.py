"""Manifests applied to a cluster as they are: their pods reach what the manifest expects, containers see it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from dra_driver.allocator.pools import pools_from_slices
from dra_driver.cli.demo_sharing import is_about_shares
from dra_driver.cli.expectations import (
    Expectation,
    State,
    expectation_of,
    failed_prepares,
    unschedulable_message,
)
from dra_driver.cli.manifests import Manifest
from dra_driver.kube.interface import CONFIG_MAPS, DEVICE_CLASSES, EVENTS, NAMESPACES, PODS, KubeApi, NotFound
from e2e.images.workload import REFERENCE, full_reference, workload_archive
from e2e.kit.features import ADMIN_ACCESS, ALL_SHARES, EXTENDED_RESOURCES, PRIORITIZED_LISTS, SHARES
from e2e.kit.pools import driver_slices
from e2e.kit.replicas import NAMESPACE as OPERATOR
from e2e.kit.replicas import ensure_namespace, wait_shares, wait_whole
from e2e.kit.space import GONE_SECONDS, READY_SECONDS, Space, state
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import GPU_CLASS

_REPLICAS = 4  # of the examples' ConfigMaps
# What the real scheduler says of devices, whatever the cause; the reasons of gpu-dra's own allocator say more.
_SCHEDULER_SAYS = "cannot allocate all claims"


def try_manifests(stage: Stage, manifests: Sequence[Manifest], leaving: list[Space]) -> None:
    """``leaving`` gets their namespaces, whose pods are going away when this returns."""
    pools = pools_from_slices(driver_slices(stage.api))
    expected = {pod.name: expectation_of(pod.object, pools) for pod in manifests if pod.resource == PODS}
    assert expected, "there is no pod, so nothing can be checked"
    spaces = {
        name: Space(stage.api, stage.kubectl, name)
        for name in {manifest.namespace for manifest in manifests if manifest.namespace} - {OPERATOR}
    }
    leaving += spaces.values()
    stand_in_for_images(stage, manifests)
    try:
        apply(stage, manifests, spaces)
        for pod in (manifest for manifest in manifests if manifest.resource == PODS):
            check_pod(spaces[pod.namespace or "default"], pod.name, expected[pod.name])
    finally:
        for space in spaces.values():
            space.start_deleting(*space.pods(), grace=1)
        for manifest in manifests:
            if manifest.resource == DEVICE_CLASSES:
                stage.api.delete(DEVICE_CLASSES, manifest.name)
        take_config_maps_away(stage, manifests, spaces)


def stand_in_for_images(stage: Stage, manifests: Sequence[Manifest]) -> None:
    """No image is pulled on a cluster that has ours loaded."""
    if stage.cluster.image is None:
        return
    pods = (manifest.object["spec"] for manifest in manifests if manifest.resource == PODS)
    containers = (each for pod in pods for each in (*pod.get("initContainers", ()), *pod["containers"]))
    for reference in {full_reference(container["image"]) for container in containers} - {REFERENCE}:
        stage.cluster.load_image(workload_archive(reference))


def apply(stage: Stage, manifests: Sequence[Manifest], spaces: Mapping[str, Space]) -> None:
    """``spaces``: the manifests' namespaces by name."""
    for manifest in manifests:
        if manifest.resource == NAMESPACES and manifest.name == OPERATOR:
            ensure_namespace(stage.api)
            continue
        if manifest.resource == NAMESPACES:
            wait_absent(stage.api, manifest.name)
        stage.api.create(manifest.resource, manifest.object)
        if manifest.resource == NAMESPACES and manifest.name in spaces:
            spaces[manifest.name].wait_usable()
        if is_about_shares(manifest):
            wait_shares(stage.api, _REPLICAS)  # pods that come before get whole GPUs


def take_config_maps_away(stage: Stage, manifests: Sequence[Manifest], spaces: Mapping[str, Space]) -> None:
    """They are about all GPUs: the next example must not find these in shares."""
    found = [manifest for manifest in manifests if manifest.resource == CONFIG_MAPS]
    if not found:
        return
    for space in spaces.values():
        space.wait_gone(*space.pods())
    for manifest in found:
        with contextlib.suppress(NotFound):
            stage.api.delete(CONFIG_MAPS, manifest.name, manifest.namespace)
    wait_whole(stage.api)


def wait_absent(api: KubeApi, namespace: str) -> None:
    """An example's namespace has a fixed name; one of an earlier run may still be going away."""

    def look() -> None:
        with contextlib.suppress(NotFound):
            found = api.get(NAMESPACES, namespace)
            raise NotYet(f"namespace {namespace} is there already, {found['status']['phase']}")

    eventually(look, GONE_SECONDS)


def check_pod(space: Space, name: str, expectation: Expectation) -> None:
    """``name`` gets where its manifest expects it, and its containers see what they claim."""
    if expectation.state is State.PENDING:
        message = space.stays_pending(name)
        assert _SCHEDULER_SAYS in message, f"{name} waits for another reason: {message}"
        return
    wait_for_state(space, name, expectation)
    if expectation.state is State.RUNNING:
        assert space.devices_of(name), f"{name} runs without a device"
        space.check_containers(name)


def wait_for_state(space: Space, name: str, expectation: Expectation) -> None:
    def look() -> None:
        pod = space.api.get(PODS, name, space.namespace)
        assert not expectation.is_missed(pod), f"{name} was to be {expectation}: {state(pod)}"
        failure = failed_prepares(space.api.list(EVENTS, space.namespace).items).get(pod["metadata"]["uid"], "")
        if not expectation.is_met(pod, failure):
            raise NotYet(f"{name} is to be {expectation}: {state(pod)}{unschedulable_message(pod)}{failure}")

    eventually(look, READY_SECONDS)


def features_used(manifests: Sequence[Manifest]) -> set[str]:
    """What an example needs of Kubernetes that not every supported version has."""
    text = "\n".join(str(manifest.object) for manifest in manifests)
    marks = {
        "'firstAvailable'": PRIORITIZED_LISTS,
        "'adminAccess'": ADMIN_ACCESS,
        "'nvidia.com/gpu'": EXTENDED_RESOURCES,
        "'extendedResourceName'": EXTENDED_RESOURCES,
        "'capacity': {'requests'": SHARES,
    }
    used = {feature for mark, feature in marks.items() if mark in text}
    # All shares of a node, or a whole GPU beside one that has fractions: the scheduler must look at a second device.
    second = ("'allocationMode': 'All'", f"'deviceClassName': '{GPU_CLASS}'")
    return used | ({ALL_SHARES} if SHARES in used and any(mark in text for mark in second) else set())
