"""What a real API server and kube-scheduler make of claims for fractions is what our own make of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from dra_driver.devices.shares import COMPUTE
from dra_driver.kube.interface import KubeApi, Obj
from e2e.clusters.interface import Ability
from e2e.kit.features import ALL_SHARES, SHARES
from e2e.kit.fraction_rounds import Rounds, Stream, stream_of
from e2e.kit.ghost import GhostNode, ghost_node
from e2e.kit.pools import driver_slices
from e2e.kit.space import Space, unique_name
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually

MIB = 2**20
STEPS = {"fine": (256, 1), "coarse": (1024, 5), "odd": (300, 30)}  # Mi of memory, percent
_NODES_OF_EACH = 3
_ROUNDS = 24
_OFFERED_SECONDS = 60.0
_SEED = 20261130

pytestmark = [
    pytest.mark.needs(SHARES, ALL_SHARES),
    pytest.mark.simulated,
    pytest.mark.own_install,
    pytest.mark.hands(Ability.RUN_ON_NODE),  # a Node without a machine is not for somebody else's cluster
    pytest.mark.last(36),
]


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


@pytest.mark.timeout(300, func_only=True)
def test_the_scheduler_gives_what_our_allocator_gives(stage: Stage, space: Space, nodes: dict[str, str]) -> None:
    rounds = Rounds(space, [stream(space, node, kind) for node, kind in nodes.items()], Random(_SEED))  # noqa: S311
    try:
        for number in range(_ROUNDS):
            differences = rounds.play()
            assert not differences, f"round {number} of seed {_SEED}: " + "\n".join(differences)
    finally:
        rounds.close()
    assert rounds.given + rounds.refused >= 200
    assert min(rounds.given, rounds.refused) > 40, "rounds are about something"


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
