"""What the demo makes of the condition about sharing: what it says and when, and what is a failure."""

from __future__ import annotations

import threading
import time

import pytest

from dra_driver.cli import demo_sharing
from dra_driver.cli.demo_sharing import sharing_conditions, wait_for_rules, wait_for_shares
from dra_driver.kube.interface import NODE_INVENTORIES, RESOURCE_SLICES, Obj
from dra_driver.simulation.store import EmbeddedApi

FOUR = "nvidia.com/gpu: 4 shares of each of gpu-0 (TimeSlicing)"
BROKEN = "key any: replicas: must be a whole number;\nnothing is shared by it"
WAITING = "waiting for what the nodes make of ConfigMap gpu-operator/time-slicing-config ..."


def cluster(**conditions: tuple[str, str] | None) -> EmbeddedApi:
    api = EmbeddedApi()
    for node, condition in conditions.items():
        api.create(NODE_INVENTORIES, {"metadata": {"name": node}, "spec": {}})
        if condition:
            say(api, node, *condition)
    return api


def say(api: EmbeddedApi, node: str, status: str, message: str) -> None:
    said = {"type": "SharingConfigured", "status": status, "reason": "R", "message": message}
    others = {"type": "FullyPublished", "status": "True", "reason": "AsDesired", "message": ""}
    status_patch = {"status": {"conditions": [others, {**said, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
    api.patch(NODE_INVENTORIES, node, status_patch, subresource="status")


def offer(api: EmbeddedApi, node: str, *, shared: bool = True) -> None:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    device: Obj = {"name": "gpu-0", **({"allowMultipleAllocations": True} if shared else {})}
    spec = {"driver": "gpu.nvidia.com", "nodeName": node, "pool": pool, "devices": [device]}
    api.create(RESOURCE_SLICES, {"metadata": {"name": node}, "spec": spec})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_sharing, "_SECONDS", 0.2)


def test_shares_are_told_once_for_all_nodes() -> None:
    api = cluster(a=("True", FOUR), b=("True", FOUR))
    for node in "ab":
        offer(api, node)
    told: list[str] = []
    assert wait_for_shares(api, {}, told.append) == ""
    assert told == [WAITING, f"SharingConfigured is True on each node: {FOUR}"]


def test_a_broken_one_is_told_in_one_line_without_waiting_for_shares() -> None:
    told: list[str] = []
    began = time.monotonic()
    wrong = wait_for_shares(cluster(a=("False", BROKEN)), {}, told.append)
    assert time.monotonic() - began < 5
    assert wrong == f"SharingConfigured is False on each node: {' '.join(BROKEN.split())}"
    assert told == [WAITING, wrong]


def test_nodes_that_differ_are_named() -> None:
    told: list[str] = []
    wrong = wait_for_shares(cluster(a=("True", FOUR), b=("False", "no"), c=("False", "no")), {}, told.append)
    assert told[1:] == [f"SharingConfigured is True on a: {FOUR}", "SharingConfigured is False on b, c: no"]
    assert wrong == told[2]


def test_what_was_said_before_the_config_map_is_not_about_it() -> None:
    api = cluster(a=("False", "there is no ConfigMap"))
    before = sharing_conditions(api)
    offer(api, "a")
    later = threading.Timer(0.2, say, (api, "a", "True", FOUR))
    later.start()
    told: list[str] = []
    assert wait_for_shares(api, before, told.append) == ""
    later.join()
    assert told[1:] == [f"SharingConfigured is True on each node: {FOUR}"]


@pytest.mark.usefixtures("short")
def test_a_condition_that_stays_as_it_was_is_what_is_known() -> None:
    api = cluster(a=("False", "no"))
    assert (
        wait_for_shares(api, sharing_conditions(api), lambda _: None) == "SharingConfigured is False on each node: no"
    )


@pytest.mark.usefixtures("short")
def test_nodes_that_say_nothing_are_not_taken_for_good() -> None:
    wrong = wait_for_shares(cluster(a=None), {}, lambda _: None)
    assert wrong.startswith("condition SharingConfigured is not there on each node after")


@pytest.mark.usefixtures("short")
def test_shares_that_do_not_come_are_not_taken_for_good() -> None:
    api = cluster(a=("True", FOUR), b=("True", FOUR))
    offer(api, "a")
    offer(api, "b", shared=False)
    told: list[str] = []
    assert wait_for_shares(api, {}, told.append) == told[-1]
    assert told[-1].startswith("no shares are offered by b")


@pytest.mark.usefixtures("short")
def test_rules_are_waited_for_while_devices_are_measured() -> None:
    """That takes a node longer than the shares of a ConfigMap do."""
    api = cluster(a=("False", "gpu-0 is not shared: it was not measured"))
    offer(api, "a")
    later = threading.Timer(1.0, say, (api, "a", "True", FOUR))
    later.start()
    told: list[str] = []
    assert wait_for_rules(api, told.append, 30.0, fenced=True) == ""
    assert told[1:] == [f"SharingConfigured is True on each node: {FOUR}"]


def test_rules_that_do_nothing_are_told() -> None:
    api = cluster(a=("False", "no memory of its own"))
    offer(api, "a")
    told: list[str] = []
    began = time.monotonic()
    wrong = wait_for_rules(api, told.append, 0.2, fenced=True)
    assert time.monotonic() - began < 5
    assert wrong == "SharingConfigured is False on each node: no memory of its own"
