"""NVIDIA's device plugin and GPU Feature Discovery on a node's simulated GPUs, through libnvidia-ml in C.

Unchanged programs against a real kubelet: what they find must be what our driver publishes. Nobody lets a device plugin
and this driver give away the same GPUs; here nothing has a claim meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from api.node_inventory import NodeInventory
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.kube.interface import NODE_INVENTORIES
from e2e.clusters import programs
from e2e.clusters.interface import Ability
from e2e.kit.device_plugins import allocatable, forget, read_registered
from e2e.kit.features import AFTER_DEVICE_PLUGIN, EXTENDED_RESOURCES, PARTITIONS
from e2e.kit.mig import partitioned
from e2e.kit.node_programs import HOST, LIBRARIES, NodeProgram, has_nvml, on_simulated_gpus, running
from e2e.kit.nvidia_programs import DOMAIN, GPU_RESOURCE, Strategy, labels, parse_labels, resources
from e2e.kit.pools import profiles as published_profiles
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Container, pod

_APPLICATION_XID, _FATAL_XID = 31, 79  # a page fault; fallen off the bus
_SECONDS = 30.0
_LABELS_FOLDER = "/run/e2e-gpu-feature-discovery"
# GPU Feature Discovery loads the library by its name alone.
_DISCOVER = f"""
mkdir -p {_LABELS_FOLDER}
trap 'rm -rf {_LABELS_FOLDER}' EXIT
LD_LIBRARY_PATH={LIBRARIES} "$0" --oneshot --no-timestamp --use-node-feature-api=false --machine-type-file= \
  --output-file={_LABELS_FOLDER}/gfd "$@" && cat {_LABELS_FOLDER}/gfd
"""

pytestmark = [
    pytest.mark.simulated,
    pytest.mark.hands(Ability.RUN_ON_NODE, Ability.RESTART_KUBELET),
    pytest.mark.last(38),
]


@pytest.fixture(scope="module")
def forgetting(session_stage: Stage) -> Iterator[None]:
    """No test after these finds a resource of the device plugin."""
    yield
    node = session_stage.nodes[0]
    forget(session_stage.cluster, session_stage.api, node, DOMAIN)


@pytest.fixture
def node(stage: Stage, request: pytest.FixtureRequest) -> str:
    """The node that the programs run on."""
    name = stage.nodes[0]
    if not has_nvml(stage.cluster, name):
        pytest.skip(f"{name} has no library that a program can load: it was set up without a C compiler")
    request.getfixturevalue("forgetting")
    return name


@pytest.fixture
def built(node: str) -> dict[str, Path]:
    """NVIDIA's programs by name, for a node that they can run on."""
    try:
        return programs.ensure([programs.DEVICE_PLUGIN])
    except programs.ModulesOutOfReach as error:
        pytest.skip(str(error))


@pytest.fixture
def plugin_command(built: dict[str, Path]) -> Sequence[str]:
    """The device plugin, which hands over the nodes of the simulated driver's tree."""
    program = str(built["nvidia-device-plugin"])
    return [program, f"--container-driver-root={HOST}", f"--nvidia-dev-root={HOST}", "--pass-device-specs"]


@pytest.mark.parametrize("strategy", [Strategy.NONE, Strategy.MIXED])
def test_labels_say_what_the_machine_is(stage: Stage, node: str, built: dict[str, Path], strategy: Strategy) -> None:
    assert discovered(stage, node, built, strategy) == labels(machine_of(stage, node), strategy)


def test_the_device_plugin_lists_gpus_serves_a_pod_and_tells_a_broken_one(
    stage: Stage, space: Space, node: str, plugin_command: Sequence[str]
) -> None:
    machine = machine_of(stage, node)
    wanted = resources(machine, Strategy.NONE)
    with running(stage.cluster, node, "nvidia-device-plugin", plugin_command) as program:
        wait_listed(stage, program, wanted)
        space.pod(pod("served", containers=(limited(2),), node=node))
        space.wait_ready("served")
        assert not space.claims_of("served"), "a node's own devices go before those of DRA"
        seen = space.look("served")
        has = {gpu.minor for gpu in machine.gpus if gpu.uuid in (seen.visible_devices or "").split(",")}
        assert len(has) == 2
        assert seen.gpus == has
        space.delete_pods("served")
        sound, broken = machine.gpus[0], machine.gpus[-1]
        stage.pods.report_xid(node, sound.minor, _APPLICATION_XID)
        stage.pods.report_xid(node, broken.minor, _FATAL_XID)
        wait_listed(stage, program, {GPU_RESOURCE: wanted[GPU_RESOURCE] - {broken.uuid}})
    wait_offered(stage, program, {})
    if not stage.features.has(AFTER_DEVICE_PLUGIN):
        forget(stage.cluster, stage.api, node, DOMAIN)
    if stage.features.has(EXTENDED_RESOURCES):
        space.pod(pod("moved", containers=(limited(2),), node=node))
        space.wait_ready("moved")
        assert len(space.check_containers("moved")["main"].gpus) == 2, "what the plugin leaves this driver serves"


@pytest.mark.needs(PARTITIONS)
@pytest.mark.parametrize(("strategy", "profiles"), [(Strategy.MIXED, (3, 2, 1)), (Strategy.SINGLE, (3, 3))])
def test_mig_devices(
    stage: Stage,
    node: str,
    built: dict[str, Path],
    plugin_command: Sequence[str],
    strategy: Strategy,
    profiles: Sequence[int],
) -> None:
    """``profiles``: by their compute slices; single wants the same on every GPU."""
    if not published_profiles(stage.api):
        pytest.skip("no GPU here is partitioned on demand: MACHINE=h100-sxm5-80gb")
    gpus = machine_of(stage, node).gpus
    chosen = [gpus[-1].minor] if strategy is Strategy.MIXED else []
    with partitioned(stage.pods, node, [profile_id(gpus[-1], slices) for slices in profiles], *chosen):
        machine = eventually(lambda: check_instances(stage, node, len(profiles) * len(chosen or gpus)), _SECONDS)
        assert discovered(stage, node, built, strategy) == labels(machine, strategy)
        command = [*plugin_command, f"--mig-strategy={strategy}"]
        with running(stage.cluster, node, "nvidia-device-plugin", command) as program:
            wait_listed(stage, program, resources(machine, strategy))
    eventually(lambda: check_instances(stage, node, 0), _SECONDS)


def machine_of(stage: Stage, node: str) -> Machine:
    """As our driver has read and published it."""
    status = NodeInventory.model_validate(stage.api.get(NODE_INVENTORIES, node)).status
    assert status.machine is not None
    return machine_from_status(status.machine)


def check_instances(stage: Stage, node: str, count: int) -> Machine:
    machine = machine_of(stage, node)
    found = sum(len(gpu.mig.instances) for gpu in machine.gpus if gpu.mig)
    enabled = any(gpu.mig and gpu.mig.enabled for gpu in machine.gpus)
    if found != count or enabled != bool(count):
        raise NotYet(f"{node} publishes {found} GPU instances, {count} are wanted; MIG mode is {enabled}")
    return machine


def profile_id(gpu: Gpu, slices: int) -> int:
    """The plain profile of that size comes first."""
    assert gpu.mig is not None
    return next(profile.id for profile in gpu.mig.profiles if profile.slice_count == slices)


def discovered(stage: Stage, node: str, built: dict[str, Path], strategy: Strategy) -> dict[str, str]:
    """What GPU Feature Discovery writes into its file."""
    program = str(built["gpu-feature-discovery"])
    command = on_simulated_gpus(["sh", "-c", _DISCOVER, program, f"--mig-strategy={strategy}"])
    return parse_labels(stage.cluster.run_on_node(node, command))


def wait_listed(stage: Stage, program: NodeProgram, wanted: dict[str, set[str]]) -> None:
    """Until the kubelet knows exactly these devices as healthy ones, and the Node offers as many."""
    wait_offered(stage, program, {name: len(ids) for name, ids in wanted.items()})
    found = {name: ids for name, ids in read_registered(stage.cluster, program.node).items() if ids}
    assert found == wanted


def wait_offered(stage: Stage, program: NodeProgram, wanted: dict[str, int]) -> None:
    def look() -> None:
        found = {name: count for name, count in allocatable(stage.api, program.node, DOMAIN).items() if count}
        if found != wanted:
            raise NotYet(f"the Node offers {found}, wanted are {wanted}; the program says:\n{program.output()}")

    eventually(look, _SECONDS)


def limited(count: int) -> Container:
    return Container(limits={GPU_RESOURCE: str(count)})
