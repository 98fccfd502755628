"""Nothing but the leader's Lease is written while nothing changes: with the real controller, which is elected as in
production, and a real plugin, over restarts and a minute."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.kube.interface import LEASES, NODE_INVENTORIES, RESOURCE_SLICES
from dra_driver.simulation.cluster import EmbeddedCluster

pytestmark = [pytest.mark.process, pytest.mark.waits, pytest.mark.timeout(180)]

IDLE_SECONDS = 60.0
NODE = "gpu-node-0"
PLUGIN = f"plugin-{NODE}"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    cluster = EmbeddedCluster("h100-sxm5-80gb", 1, tmp_path, leader_election=True)
    try:
        cluster.start()
        cluster.wait_until_ready(30)
        yield cluster
    finally:
        cluster.stop()


def slice_writes(cluster: EmbeddedCluster) -> int:
    return sum(count for (_verb, plural), count in cluster.api.writes().items() if plural == RESOURCE_SLICES.plural)


def registrations(cluster: EmbeddedCluster) -> int:
    return len([line for line in plugin_log(cluster) if "the kubelet registered this plugin" in line])


def plugin_log(cluster: EmbeddedCluster) -> list[str]:
    return (cluster.logs / f"{PLUGIN}.log").read_text().splitlines()


def test_restarts_write_no_slice_and_an_idle_minute_writes_the_lease_only(cluster: EmbeddedCluster) -> None:
    before = cluster.api.list(RESOURCE_SLICES).items
    assert before
    written = slice_writes(cluster)
    for restarts in (1, 2):
        cluster.restart(PLUGIN)
        deadline = time.monotonic() + 30
        while registrations(cluster) <= restarts:
            assert time.monotonic() < deadline, "the restarted plugin was not registered"
            time.sleep(0.05)
        cluster.restart("controller")
    time.sleep(12)  # longer than the plugin's grace and one rescan of its hardware
    assert slice_writes(cluster) == written
    assert cluster.api.list(RESOURCE_SLICES).items == before

    quiet: Counter[tuple[str, str]] = Counter(cluster.api.writes())
    time.sleep(IDLE_SECONDS)
    renewals = ("update", LEASES.plural)
    written_meanwhile = cluster.api.writes() - quiet
    assert set(written_meanwhile) == {renewals}
    # Every two seconds (retryPeriod) by default; on a busy machine later, but in time to keep it (renewDeadline).
    assert IDLE_SECONDS / 10 <= written_meanwhile[renewals] <= IDLE_SECONDS / 2 + 1
    (lease,) = cluster.api.list(LEASES).items
    assert lease["metadata"]["name"] == "gpu-dra-controller"
    cluster.check()
    inventory = cluster.api.get(NODE_INVENTORIES, NODE)
    assert inventory["status"]["registration"]["registered"] is True
