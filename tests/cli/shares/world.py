"""Clusters with shared GPUs for the tests of ``gpu-dra shares``: what controller and scheduler would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.claim_config import SharingStrategy
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import view
from dra_driver.cli.shares.report import table_lines
from dra_driver.cli.shares.use import Blocked, DeviceUse, NodeUse
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule
from dra_driver.kube.interface import Obj
from tests.cli.mig.world import DRIVER, claim

TIME_SLICING, MPS = SharingStrategy.TIME_SLICING, SharingStrategy.MPS
ONE: Mapping[str, str] = {"shares": "1", "memory": "0"}


def sharing(*rules: SharingRule, mig: MigRule | None = None) -> DevicePolicy:
    return DevicePolicy(mig=MigPolicy((mig or MigRule(),)), sharing=SharingPolicy(rules))


def rule(strategy: SharingStrategy, count: int, profile: str | None = None) -> SharingRule:
    return SharingRule(Replicas(strategy, count), mig_profile=profile)


def share(
    name: str,
    device: str,
    *consumed: Mapping[str, str],
    pods: Sequence[str] = (),
    admin: bool = False,
    node: str = "n0",
) -> Obj:
    """A claim that has a share of ``device`` for each of ``consumed``."""
    made = claim(name, node, *[device] * len(consumed), pods=pods)
    for number, result in enumerate(made["status"]["allocation"]["devices"]["results"]):
        # As UUIDs are, so that an API server takes them.
        share_id = f"{number:08}-0000-4000-8000-{name.encode().hex()[:12]:0>12}"
        result |= {"shareID": share_id, "consumedCapacity": dict(consumed[number])}
        if admin:
            result["adminAccess"] = True
    return made


def pods(*claims: Obj, phase: str = "Running") -> list[Obj]:
    """Those for which the claims are reserved."""
    return [
        {
            "metadata": {"name": each["name"], "namespace": entry["metadata"]["namespace"], "uid": each["uid"]},
            "status": {"phase": phase},
        }
        for entry in claims
        for each in entry["status"]["reservedFor"]
    ]


def tainted(slices: Sequence[Obj], device: str, key: str, effect: str = "NoSchedule") -> None:
    for found in (each for entry in slices for each in entry["spec"].get("devices") or ()):
        if found["name"] == device:
            found["taints"] = [*found.get("taints", ()), {"key": key, "effect": effect}]


def uses(slices: Sequence[Obj], *claims: Obj) -> tuple[NodeUse, ...]:
    return nodes_of(view(DRIVER, slices, claims, pods(*claims)))


def row(nodes: Sequence[NodeUse], device: str) -> DeviceUse:
    (found,) = (row for node in nodes for row in node.devices if row.name == device)
    return found


def blocked(nodes: Sequence[NodeUse], device: str) -> Blocked:
    found = row(nodes, device).blocked
    assert found is not None
    return found


def table(nodes: Sequence[NodeUse], *, wide: bool = False) -> str:
    return "\n".join(line.plain for line in table_lines(nodes, DRIVER, wide=wide))


def cells(nodes: Sequence[NodeUse], device: str) -> list[list[str]]:
    """The lines of ``device`` from SHARED BY on; columns are apart by two spaces."""
    (node,) = nodes
    own = NodeUse(node.name, (row(nodes, device),))
    lines = table((own,)).split("\n\n")[0].splitlines()
    heads = ("SHARED BY", "HELD", "FREE", "LARGEST", "HOLDERS")
    starts = [lines[0].index(head) for head in heads]
    ends = [*starts[1:], None]
    return [
        [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        for line in lines[1:]
        if not line.startswith(f"{node.name}:")
    ]
