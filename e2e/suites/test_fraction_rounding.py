"""What a real API server and kube-scheduler make of claims for fractions is what our own make of them."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from dra_driver.devices.shares import COMPUTE
from dra_driver.kube.interface import RESOURCE_CLAIMS, ApiError, KubeApi, Obj
from dra_driver.simulation.store import EmbeddedApi
from e2e.clusters.interface import Ability
from e2e.kit.features import ALL_SHARES, SHARES
from e2e.kit.fraction_requests import Offer, random_pod
from e2e.kit.fraction_rounds import Rounds, Stream, stream_of
from e2e.kit.ghost import GhostNode, ghost_node
from e2e.kit.pools import driver_slices, versions
from e2e.kit.space import Space, unique_name
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import GPU_CLASS, claim_spec

MIB = 2**20
STEPS = {"fine": (256, 1), "coarse": (1024, 5), "odd": (300, 30)}  # Mi of memory, percent
_NODES_OF_EACH = 3
_ROUNDS = 24
_OFFERED_SECONDS = 60.0
_SEED = 20261130

_SPECS_OF_PODS = 150
_OFFER = Offer(memory=40192 * MIB, memory_step=256 * MIB, compute_step=1, gpus=8, profiles=("1g.5gb", "2g.10gb"))
# Of bodies that nobody should write: amounts, then whole requests. Null is nothing.
_ODD_AMOUNTS: tuple[object, ...] = (
    "-1",
    "-0",
    "1K",
    "1ki",
    "10 Gi",
    "",
    "0x10",
    "1e3Gi",
    "1..5",
    "1e30",
    5,
    1.5,
    None,
    True,
)
_ODD_NAMES = ("gpu.nvidia.com/memory", "Memory!", "a/b/c", "", "x" * 40)
_ODD_REQUESTS: tuple[Obj, ...] = (
    {"count": 0},
    {"count": -1},
    {"count": 33},
    {"count": "1"},
    {"count": 1, "allocationMode": "All"},
    {"allocationMode": "Some"},
    {"allocationMode": "All", "capacity": {"requests": {"memory": "1Gi"}}},
    {"capacity": {}},
    {"capacity": {"requests": {}}},
    {"capacity": {"limits": {"memory": "1Gi"}}},
    {"capacity": None},
    {"capacity": []},
    {"capacity": {"requests": []}},
    {"deviceClassName": ""},
    {"deviceClassName": "GPU"},
)

pytestmark = pytest.mark.needs(SHARES)


def test_the_server_takes_and_refuses_claims_as_ours_does(stage: Stage) -> None:
    """Defaults, what is dropped, how amounts are written, what is refused and where."""
    random, ours = Random(_SEED), EmbeddedApi()  # noqa: S311
    specs = [spec for _ in range(_SPECS_OF_PODS) for spec in random_pod(random, _OFFER)]
    asked = [*specs, *map(claim_of, odd_requests())]
    outcomes = [(spec, stored(stage.api, spec), stored(ours, spec)) for spec in asked]
    differences = [f"{spec}: the server says {real}, ours {own}" for spec, real, own in outcomes if real != own]
    assert not differences, "\n".join(differences)
    assert sum(isinstance(real, tuple) for _, real, _ in outcomes) >= 15


@pytest.fixture
def nodes(stage: Stage, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Nodes without machines, each the real one once more, and by which steps it is offered."""
    prefix = unique_name("fractions")
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"sharing": {"rules": rules(prefix)}}))
    stage.driver.install(SETTINGS, [values])
    try:
        eventually(lambda: check_offered(stage.api, stage.nodes[0]), _OFFERED_SECONDS)
        names = {f"{prefix}-{kind}-{number}": kind for kind in STEPS for number in range(_NODES_OF_EACH)}
        with contextlib.ExitStack() as stack:
            ghosts: list[GhostNode] = []
            for name in names:
                ghosts.append(stack.enter_context(ghost_node(stage.api, name, stage.nodes[0])))
                ghosts[-1].give_room()
            for ghost in ghosts:
                ghost.publish()
                eventually(partial(check_offered, stage.api, ghost.name), _OFFERED_SECONDS)
            yield names
    finally:
        stage.install_driver()


@pytest.mark.needs(ALL_SHARES)
@pytest.mark.simulated
@pytest.mark.own_install
@pytest.mark.hands(Ability.RUN_ON_NODE)  # a Node without a machine is not for somebody else's cluster
@pytest.mark.last(36)
@pytest.mark.timeout(300, func_only=True)
def test_the_scheduler_gives_what_our_allocator_gives(stage: Stage, space: Space, nodes: dict[str, str]) -> None:
    rounds = Rounds(space, [stream(space, node, kind) for node, kind in nodes.items()], Random(_SEED))  # noqa: S311
    try:
        for number in range(_ROUNDS):
            differences = rounds.play()
            assert not differences, f"round {number} of seed {_SEED}: " + "\n".join(differences)
        for one in rounds.streams:
            now = driver_slices(stage.api, one.node)
            assert versions(now) == versions(one.slices), f"what {one.node} offers has changed meanwhile"
    finally:
        rounds.close()
    assert rounds.given + rounds.refused >= 200
    assert min(rounds.given, rounds.refused) > 40, "rounds are about something"


def odd_requests() -> Iterator[Obj]:
    yield from ({"capacity": {"requests": {"memory": amount}}} for amount in _ODD_AMOUNTS)
    yield from ({"capacity": {"requests": {name: "1"}}} for name in _ODD_NAMES)
    yield from _ODD_REQUESTS


def claim_of(body: Obj) -> Obj:
    return claim_spec({"name": "gpu", "exactly": {"deviceClassName": GPU_CLASS, **body}})


def stored(api: KubeApi, spec: Obj) -> Obj | tuple[object, ...]:
    """What becomes of a claim's spec; for one that is refused the kind of the error, and each field with the reason."""
    body = {"metadata": {"name": "odd", "namespace": "default"}, "spec": copy.deepcopy(spec)}
    try:
        found: Obj = api.create(RESOURCE_CLAIMS, body, dry_run=True)["spec"]
    except ApiError as error:
        causes = (error.details or {}).get("causes") or ()
        return (type(error).__name__, *((cause["field"], cause["reason"]) for cause in causes))
    return found


def rules(prefix: str) -> list[Obj]:
    """Every node in fractions of the default steps, which are the fine ones, but those with other names."""
    listed = [
        {
            "selector": {"nodes": [f"{prefix}-{kind}-*"]},
            "fractions": {"memoryStep": f"{memory}Mi", "computeStep": compute},
        }
        for kind, (memory, compute) in STEPS.items()
        if kind != "fine"
    ]
    return [*listed, {"fractions": {}}]


def stream(space: Space, node: str, kind: str) -> Stream:
    memory, compute = STEPS[kind]
    made = stream_of(space, node, memory_step=memory * MIB, compute_step=compute)
    whole = [each for entry in made.slices for each in entry["spec"].get("devices") or () if is_fractional(each)]
    (step,) = {each["capacity"][COMPUTE]["requestPolicy"]["validRange"]["step"] for each in whole}
    assert step == str(compute), f"{node} is not offered by its own rule"
    return made


def check_offered(api: KubeApi, node: str) -> None:
    """All GPUs, in fractions."""
    devices = [each for entry in driver_slices(api, node) for each in entry["spec"].get("devices") or ()]
    whole = [each for each in devices if each["attributes"]["type"]["string"] == "gpu"]
    if left := [each["name"] for each in whole if not is_fractional(each)]:
        raise NotYet(f"{', '.join(left)} of {node} are not offered in fractions")
    if not whole:
        raise NotYet(f"{node} offers no GPU")


def is_fractional(device: Obj) -> bool:
    return bool(device.get("allowMultipleAllocations")) and COMPUTE in device["capacity"]
