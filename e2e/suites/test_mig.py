"""MIG devices on a real node: made for a claim, seen by its containers alone, gone with it, whoever disturbs.

Needs GPUs that are partitioned on demand: MACHINE=h100-sxm5-80gb.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from dra_driver.allocator.model import Device
from dra_driver.devices.naming import MigName, parse_name
from dra_driver.kube.interface import EVENTS, RESOURCE_SLICES, Obj
from e2e.install import NAMESPACE
from e2e.kit.expected import Result, devices_of_container
from e2e.kit.features import DEVICE_TAINTS, PARTITIONS
from e2e.kit.mig import Instance, NodeMig, nvidia_smi, read_mig
from e2e.kit.pools import gpus, pool_of, profiles
from e2e.kit.recording import recording
from e2e.kit.space import Space, names
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import (
    MIG_CLASS,
    Container,
    Use,
    alternative,
    claim_spec,
    exactly,
    first_available,
    is_profile,
    pod,
)
from e2e.suites.test_examples import EXAMPLES

SMALL, MEDIUM, LARGE = "1g.10gb", "2g.20gb", "3g.40gb"
_FOLLOW_SECONDS = 10.0  # what the hardware shows must be in the slices by then
# Before, the scheduler goes through the slices of a pool, and so through GPUs, in no order
# (k8s.io/dynamic-resource-allocation, structured allocator).
SLICES_IN_ORDER = (1, 36)
_CHURN_ROUNDS, _CHURN_PODS = 5, 8

pytestmark = [pytest.mark.simulated, pytest.mark.needs(PARTITIONS)]


@pytest.fixture(autouse=True)
def _partitioned(stage: Stage) -> None:
    if SMALL not in profiles(stage.api):
        pytest.skip(f"no GPU here is partitioned on demand into {SMALL}: MACHINE=h100-sxm5-80gb")


def mig(name: str, profile: str, count: int | None = None) -> Obj:
    return exactly(name, device_class=MIG_CLASS, count=count, selectors=[is_profile(profile)])


@pytest.mark.timeout(300, func_only=True)
def test_containers_see_their_own_mig_device_and_no_other(stage: Stage, space: Space) -> None:
    requests = {"large": LARGE, "medium": MEDIUM, "small": SMALL, "media": f"{SMALL}+me"}
    constraint = {"matchAttribute": "gpu.nvidia.com/parentUUID"}
    claims = [mig(name, profile) for name, profile in requests.items()]
    space.template("four", claim_spec(*claims, constraints=[constraint]))
    containers = [Container(name, claims=(f"gpu/{name}",)) for name in requests]
    space.pod(pod("four", Use(template="four"), containers=containers))
    ready = space.wait_ready("four")["four"]
    node = str(ready["spec"]["nodeName"])
    hardware = read_mig(stage.pods, node)
    assert len(hardware.instances) == 4, "one GPU instance for each request"
    assert len({instance.minor for instance in hardware.instances}) == 1, "matchAttribute keeps them on one GPU"
    views = space.check_containers("four")
    for name in requests:
        (result,) = devices_of_container(ready, name, space.claims())
        instance = hardware.of(result)
        assert views[name].capabilities == instance.capabilities, name
        assert listed_mig_devices(stage, space, "four", name) == set(instance.uuids)
    space.delete_pods("four")
    wait_no_instances(stage, node)


@pytest.mark.timeout(300, func_only=True)
def test_a_deployment_of_seven_shares_one_gpu_of_each_node(stage: Stage) -> None:
    """The example as users apply it, with the Deployment's controller."""
    path = str(EXAMPLES / "mig" / "04-seven-slices.yaml")
    space = Space(stage.api, stage.kubectl, "mig-04")
    try:
        stage.kubectl.run("apply", "-f", path)
        stage.kubectl.run("-n", space.namespace, "rollout", "status", "deployment/seven", "--timeout=120s", timeout=130)
        devices = [result for name in space.pods() for result in space.devices_of(name)]
        assert len(devices) == 7
        if stage.features.version >= SLICES_IN_ORDER:
            gpus_used = {(result.pool, result.minor) for result in devices}
            nodes_used = {result.pool for result in devices}
            assert len(gpus_used) == len(nodes_used), "those on one node share a GPU"
        for name in space.pods():
            space.check_containers(name)
    finally:
        stage.kubectl.run("delete", "-f", path, "--ignore-not-found", "--timeout=120s", timeout=130)
    for node in stage.nodes:
        wait_no_instances(stage, node)


def test_whole_gpus_and_slices_keep_out_of_each_other(stage: Stage, space: Space) -> None:
    """On one node: when every GPU but one is held whole, all slices come from that one, and no whole GPU is left."""
    node = stage.nodes[0]
    total = len(whole_gpus(stage, node))
    space.template("most", claim_spec(exactly(count=total - 1)))
    space.template("slice", claim_spec(mig("slice", LARGE)))
    space.template("whole", claim_spec())
    space.pod(pod("most", Use(template="most"), node=node))
    space.wait_ready("most")
    space.pod(pod("slice", Use(template="slice"), node=node))
    space.wait_ready("slice")
    held = {result.minor for result in space.devices_of("most")}
    (slice_,) = space.devices_of("slice")
    assert slice_.minor not in held
    space.pod(pod("whole", Use(template="whole"), node=node))
    space.stays_pending("whole")
    space.delete_pods("slice")
    space.wait_ready("whole")
    assert {result.minor for result in space.devices_of("whole")} == {slice_.minor}
    space.check_containers("whole")
    assert read_mig(stage.pods, node).enabled == frozenset(), "MIG mode is off where a GPU is used as a whole"


def test_alternatives_from_a_whole_gpu_down_to_slices(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    total = len(whole_gpus(stage, node))
    space.template("most", claim_spec(exactly(count=total - 1)))
    best = first_available(
        "gpu",
        alternative("whole"),
        alternative("three", device_class=MIG_CLASS, selectors=[is_profile(LARGE)]),
        alternative("twice-two", device_class=MIG_CLASS, count=2, selectors=[is_profile(MEDIUM)]),
    )
    space.template("best", claim_spec(best))
    space.template("medium", claim_spec(mig("medium", MEDIUM)))
    space.pod(pod("most", Use(template="most"), node=node))
    space.wait_ready("most")
    space.pod(pod("first", Use(template="best"), node=node))
    space.wait_ready("first")
    assert kinds(space.devices_of("first")) == ["whole"]
    space.delete_pods("first")
    space.pod(pod("medium", Use(template="medium"), node=node))
    space.wait_ready("medium")
    space.pod(pod("second", Use(template="best"), node=node))
    space.wait_ready("second")
    assert kinds(space.devices_of("second")) == ["3g40gb"]


def test_own_instances_cost_no_slice_write(stage: Stage, space: Space) -> None:
    space.template("small", claim_spec(mig("small", SMALL)))
    with recording(stage.api, RESOURCE_SLICES) as slices:
        for number in range(3):
            space.pod(pod(f"small-{number}", Use(template="small")))
            space.wait_ready(f"small-{number}")
        space.delete_pods(*names("small", 3))
    assert not slices.describe(), "claims come and go without a write to a slice"


@pytest.mark.timeout(400, func_only=True)
def test_many_pods_of_mixed_profiles_leave_nothing(stage: Stage, space: Space) -> None:
    for profile, name in ((SMALL, "small"), (MEDIUM, "medium"), (LARGE, "large")):
        space.template(name, claim_spec(mig("slice", profile)))
    kinds_ = ["small", "medium", "large"]
    for round_ in range(_CHURN_ROUNDS):
        pods = names(f"round-{round_}", _CHURN_PODS)
        for number, name in enumerate(pods):
            space.pod(pod(name, Use(template=kinds_[(round_ + number) % 3]), grace=1))
        space.wait_ready(*pods)
        if round_ == 0:
            for name in pods:
                space.check_containers(name)
        space.start_deleting(*pods)
    space.wait_gone(*space.pods())
    for node in stage.nodes:
        wait_no_instances(stage, node)
    assert not space.failed_prepares()


@pytest.mark.needs(DEVICE_TAINTS)
def test_an_instance_made_by_hand_is_announced_and_left_alone(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    minor = max(whole_gpus(stage, node))
    smi = partial(nvidia_smi, stage.pods, node)
    smi("-i", str(minor), "-mig", "1")
    smi("mig", "-i", str(minor), "-cgi", "9", "-C")
    try:
        (foreign,) = read_mig(stage.pods, node).instances
        wait_tainted(stage, node, lambda name: name.minor == minor and overlaps(foreign, name), whole={minor})
        space.template("small", claim_spec(mig("small", SMALL)))
        space.pod(pod("beside", Use(template="small"), node=node))
        space.wait_ready("beside")
        stage.kubectl.run("-n", NAMESPACE, "delete", "pod", stage.pods.plugin(node)["metadata"]["name"])
        stage.driver.wait()
        space.delete_pods("beside")
        assert read_mig(stage.pods, node).instances == (foreign,), "neither prepare nor restart touches it"
    finally:
        for instance in read_mig(stage.pods, node).instances:
            smi("mig", "-i", str(instance.minor), "-dci")
            smi("mig", "-i", str(instance.minor), "-dgi")
        smi("-i", str(minor), "-mig", "0")
    wait_tainted(stage, node, lambda _name: False, whole=set())


@pytest.mark.timeout(300, func_only=True)
def test_a_plugin_that_dies_while_it_prepares_leaves_nothing(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    space.template("large", claim_spec(mig("large", LARGE)))
    pods = names("large", 6)
    for name in pods:
        space.pod(pod(name, Use(template="large"), node=node))
    stage.kubectl.run(
        "-n", NAMESPACE, "delete", "pod", stage.pods.plugin(node)["metadata"]["name"], "--grace-period=0", "--force"
    )
    space.wait_ready(*pods)
    for name in pods:
        space.check_containers(name)
    assert len(read_mig(stage.pods, node).instances) == len(pods)
    space.delete_pods(*pods)
    wait_no_instances(stage, node)


@pytest.mark.timeout(300, func_only=True)
def test_a_placement_that_the_driver_refuses_is_told_with_both_views(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    space.template("large", claim_spec(mig("large", LARGE)))
    with stage.pods.failing_call(node, "nvmlDeviceCreateGpuInstanceWithPlacement", 23):
        space.pod(pod("refused", Use(template="large"), node=node))
        eventually(lambda: check_refusal_is_told(stage, space), 60)
    # The kubelet's next try works.
    space.wait_ready("refused")
    space.delete_pods("refused")
    wait_no_instances(stage, node)


def check_refusal_is_told(stage: Stage, space: Space) -> None:
    said = " ".join(space.failed_prepares())
    if "INSUFFICIENT_RESOURCES" not in said:
        raise NotYet(f"no event of the pod says that NVML refused: {said or 'nothing'}")
    events = [event for event in stage.api.list(EVENTS).items if "Refused" in str(event.get("reason"))]
    if not events:
        raise NotYet("no Event about the node's refused placement")


@pytest.mark.own_install
@pytest.mark.last(35)
@pytest.mark.timeout(400, func_only=True)
def test_layouts_of_a_mig_parted_file(stage: Stage, space: Space) -> None:
    """deploy/examples/values/mig-layouts.yaml: two GPUs are partitioned once and stay so; pods get what exists."""
    stage.driver.install(SETTINGS, [EXAMPLES / "values" / "mig-layouts.yaml"])
    try:
        node = stage.nodes[0]
        eventually(lambda: check_layout(stage, node), 60)
        before = read_mig(stage.pods, node).instances
        space.template("large", claim_spec(exactly("large", device_class=MIG_CLASS, selectors=[has_uuid(LARGE)])))
        space.pod(pod("large", Use(template="large"), node=node))
        space.wait_ready("large")
        (result,) = space.devices_of("large")
        seen = space.check_containers("large")["main"].capabilities
        assert seen == read_mig(stage.pods, node).of(result).capabilities
        space.delete_pods("large")
        assert read_mig(stage.pods, node).instances == before, "static MIG devices stay when their claim goes"
    finally:
        stage.install_driver()
        found = read_mig(stage.pods, stage.nodes[0])
        for instance in found.instances:
            nvidia_smi(stage.pods, stage.nodes[0], "mig", "-i", str(instance.minor), "-dci")
            nvidia_smi(stage.pods, stage.nodes[0], "mig", "-i", str(instance.minor), "-dgi")
        for minor in found.enabled:  # a layout stays until somebody takes it away, and so does its MIG mode
            nvidia_smi(stage.pods, stage.nodes[0], "-i", str(minor), "-mig", "0")


def has_uuid(profile: str) -> str:
    """A MIG device that exists: only those have a UUID."""
    return f'{is_profile(profile)} && "uuid" in device.attributes["gpu.nvidia.com"]'


def check_layout(stage: Stage, node: str) -> None:
    wanted = sorted([SMALL, SMALL, MEDIUM, LARGE] * 2)
    pool = pool_of(stage.api, node)
    devices = pool.devices if pool else ()
    static = [str(each.attribute("gpu.nvidia.com/profile")) for each in devices if is_static_mig(each)]
    if sorted(static) != wanted:
        raise NotYet(f"published of the layout is {sorted(static)}")


def is_static_mig(device: Device) -> bool:
    return device.attribute("gpu.nvidia.com/type") == "mig" and bool(device.attribute("gpu.nvidia.com/uuid"))


def listed_mig_devices(stage: Stage, space: Space, name: str, container: str) -> set[str]:
    """UUIDs of the MIG devices that nvidia-smi lists inside a container."""
    listing = stage.kubectl.execute(space.namespace, name, container, ["nvidia-smi", "-L"])
    return {line.rpartition("UUID: ")[2].rstrip(")") for line in listing.splitlines() if line.startswith("  MIG ")}


def whole_gpus(stage: Stage, node: str) -> list[int]:
    """Minors of the GPUs that are published as a whole."""
    return [parse_name(gpu.name).minor for gpu in gpus(stage.api, node)]


def kinds(results: Sequence[Result]) -> list[str]:
    found = [parse_name(result.device) for result in results]
    return sorted(name.profile if isinstance(name, MigName) else "whole" for name in found)


def wait_no_instances(stage: Stage, node: str) -> None:
    """Neither instances nor MIG mode, once no claim is left."""

    def look() -> NodeMig:
        found = read_mig(stage.pods, node)
        if found.instances or found.enabled:
            raise NotYet(f"{node} still has {found}")
        return found

    eventually(look, 15)


def overlaps(instance: Instance, name: MigName) -> bool:
    """3g takes memory slices 0-3 or 4-7 of its GPU; sizes of the others by compute slices."""
    sizes = {"1g10gb": 1, "1g10gb-me": 1, "1g20gb": 2, "2g20gb": 2, "3g40gb": 4, "4g40gb": 4, "7g80gb": 8}
    return name.start < instance.start + 4 and instance.start < name.start + sizes[name.profile]


def wait_tainted(stage: Stage, node: str, expected: Callable[[MigName], bool], *, whole: set[int]) -> None:
    def look() -> None:
        pool = pool_of(stage.api, node)
        wrong = [] if pool and not pool.problem else [f"pool: {pool.problem if pool else 'none'}"]
        for device in pool.devices if pool else ():
            name = parse_name(device.id.device)
            wanted = expected(name) if isinstance(name, MigName) else name.minor in whole
            if bool(device.taints) != wanted:
                wrong.append(f"{name} is {'not ' if wanted else ''}tainted")
        if wrong:
            raise NotYet("; ".join(wrong[:6]))

    eventually(look, _FOLLOW_SECONDS)
