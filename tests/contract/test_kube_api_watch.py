"""WATCH: order, selectors, bookmarks, ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dra_driver.kube.interface import (
    CONFIG_MAPS,
    RESOURCE_SLICES,
    BadRequest,
    EventType,
    Expired,
    Obj,
    WatchEvent,
)
from dra_driver.simulation.store import EmbeddedApi
from tests.contract.conftest import Cluster
from tests.contract.objects import config_map, resource_slice

ADDED, MODIFIED, DELETED, BOOKMARK = EventType.ADDED, EventType.MODIFIED, EventType.DELETED, EventType.BOOKMARK


def version(obj: Obj) -> str:
    found: str = obj["metadata"]["resourceVersion"]
    return found


def take(events: Iterator[WatchEvent], count: int) -> list[tuple[EventType, str]]:
    """The next events that are no bookmarks: type and name."""
    found: list[tuple[EventType, str]] = []
    while len(found) < count:
        event = next(events)
        if event.type is not BOOKMARK:
            found.append((event.type, event.object["metadata"]["name"]))
    return found


def test_events_come_in_order_from_a_version(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    api.create(CONFIG_MAPS, config_map("before", namespace))
    start = api.list(CONFIG_MAPS, namespace).resource_version
    first = api.create(CONFIG_MAPS, config_map("a", namespace))
    with api.watch(CONFIG_MAPS, namespace, resource_version=start) as events:
        first["data"] = {"x": "1"}
        second = api.update(CONFIG_MAPS, first)
        api.update(CONFIG_MAPS, second)  # no change, no event
        api.create(CONFIG_MAPS, config_map("b", namespace))
        api.delete(CONFIG_MAPS, "a", namespace)
        assert take(events, 4) == [(ADDED, "a"), (MODIFIED, "a"), (ADDED, "b"), (DELETED, "a")]
    with api.watch(CONFIG_MAPS, namespace, resource_version=version(second)) as events:
        assert take(events, 2) == [(ADDED, "b"), (DELETED, "a")]


def test_a_deletion_carries_the_last_state_and_a_new_version(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    created = api.create(CONFIG_MAPS, config_map("a", namespace, x="1"))
    with api.watch(CONFIG_MAPS, namespace, resource_version=version(created)) as events:
        api.delete(CONFIG_MAPS, "a", namespace)
        event = next(events)
    assert event.type is DELETED
    assert event.object["kind"] == "ConfigMap"
    assert event.object["data"] == {"x": "1"}
    assert int(version(event.object)) > int(version(created))


def test_version_zero_begins_with_what_exists(cluster: Cluster) -> None:
    cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    # A real server may keep the bookmark that ends the initial events for minutes: always where it has seen nothing
    # since the watch began, now and then all the same. Nothing of ours waits for it.
    ends = (_end_of_initial_events(cluster, number) for number in range(10))
    end = next(filter(None, ends))
    assert end.type is BOOKMARK
    assert end.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def _end_of_initial_events(cluster: Cluster, number: int) -> WatchEvent | None:
    """What follows the slice of the cluster's own node, while others' come; None where nothing did within seconds."""
    api, other = cluster.api, f"{cluster.name}-other-{number}"
    selector = f"spec.nodeName={cluster.name}"
    with api.watch(RESOURCE_SLICES, resource_version="0", field_selector=selector, timeout_seconds=5) as events:
        assert take(events, 1) == [(ADDED, cluster.name)]
        api.create(RESOURCE_SLICES, resource_slice(other, node=other))
        # The real server's timer may have a bookmark of its own go before it.
        later = (each for each in events if each.type is not BOOKMARK or each.object["metadata"].get("annotations"))
        return next(later, None)


def test_label_selectors_turn_changes_into_arrivals_and_departures(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    start = api.list(CONFIG_MAPS, namespace).resource_version
    with api.watch(CONFIG_MAPS, namespace, resource_version=start, label_selector="on=yes") as events:
        obj = api.create(CONFIG_MAPS, config_map("a", namespace))
        obj["metadata"]["labels"] = {"on": "yes"}
        obj = api.update(CONFIG_MAPS, obj)
        obj["data"] = {"x": "1"}
        kept = api.update(CONFIG_MAPS, obj)
        kept["metadata"]["labels"] = {}
        kept["data"] = {"x": "2"}
        left = api.update(CONFIG_MAPS, kept)
        seen = [next(events) for _ in range(3)]
        assert [event.type for event in seen] == [ADDED, MODIFIED, DELETED]
        departed = seen[-1].object
        assert departed["data"] == {"x": "1"}, "the state in which it was last selected"
        assert version(departed) == version(left)


def test_field_selectors_and_namespaces_filter(cluster: Cluster) -> None:
    api, node = cluster.api, cluster.name
    start = api.list(RESOURCE_SLICES).resource_version
    selector = f"spec.nodeName={node},spec.driver=gpu.nvidia.com"
    with api.watch(RESOURCE_SLICES, resource_version=start, field_selector=selector) as events:
        api.create(RESOURCE_SLICES, resource_slice(f"{node}-other", node=f"{node}-b"))
        api.create(RESOURCE_SLICES, resource_slice(f"{node}-mine", node=node))
        assert take(events, 1) == [(ADDED, f"{node}-mine")]
    start = api.list(CONFIG_MAPS).resource_version
    with api.watch(CONFIG_MAPS, cluster.namespace, resource_version=start) as events:
        api.create(CONFIG_MAPS, config_map(f"w-{node}", "default"))
        api.create(CONFIG_MAPS, config_map("mine", cluster.namespace))
        assert take(events, 1) == [(ADDED, "mine")]
    with (
        pytest.raises(BadRequest),
        api.watch(RESOURCE_SLICES, resource_version=start, field_selector="spec.pool.generation=1") as events,
    ):
        next(events)


def test_a_bookmark_comes_before_the_timeout_ends_the_watch(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    start = api.list(CONFIG_MAPS, namespace).resource_version
    api.create(CONFIG_MAPS, config_map("a", namespace))
    began = time.monotonic()
    with api.watch(CONFIG_MAPS, namespace, resource_version=start, timeout_seconds=1) as events:
        seen = list(events)
    assert 0.9 < time.monotonic() - began < 5
    assert seen[0].type is ADDED
    if cluster.kind == "real":
        return  # it aims at two seconds before the end, give or take two: a watch this short may get none
    assert seen[-1].type is BOOKMARK
    assert int(version(seen[-1].object)) >= int(version(seen[0].object))
    assert seen[-1].object["kind"] == "ConfigMap"


def test_close_from_another_thread_ends_a_quiet_watch(cluster: Cluster) -> None:
    start = cluster.api.list(CONFIG_MAPS, cluster.namespace).resource_version
    manager: Any = cluster.api.watch(CONFIG_MAPS, cluster.namespace, resource_version=start)
    closer = threading.Timer(0.1, manager.close)
    with manager as events:
        closer.start()
        began = time.monotonic()
        assert list(events) == []
    closer.join()
    assert time.monotonic() - began < 5


def test_a_version_that_was_compacted_is_expired() -> None:
    api = EmbeddedApi()
    start = api.list(CONFIG_MAPS).resource_version
    api.create(CONFIG_MAPS, config_map("a", "default"))
    api.compact()
    with pytest.raises(Expired) as caught, api.watch(CONFIG_MAPS, resource_version=start) as events:
        next(events)
    assert caught.value.code == 410
    now = api.list(CONFIG_MAPS).resource_version
    with api.watch(CONFIG_MAPS, resource_version=now, timeout_seconds=1) as events:
        assert [event.type for event in events] == [BOOKMARK]
