"""What the benchmark on a real node reads out of logs and objects."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import EventType
from e2e.bench.pods import Burst, PodWatch
from e2e.bench.restarts import registered_at
from e2e.kit.waiting import NotYet

_READY = {"metadata": {"name": "p1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def test_registration_is_the_first_notification() -> None:
    log = (
        "1970-01-01T00:00:01.000Z INFO kubelet_plugin.main started\n"
        "1970-01-01T00:00:01.250Z INFO kubelet_plugin.endpoint.registration the kubelet registered this plugin\n"
        "1970-01-01T00:00:09.000Z INFO kubelet_plugin.endpoint.registration the kubelet registered this plugin\n"
    )
    assert registered_at(log) == pytest.approx(1.25)


def test_a_log_without_registration_is_to_be_read_again() -> None:
    with pytest.raises(NotYet, match="registration"):
        registered_at("1970-01-01T00:00:01.000Z INFO kubelet_plugin.main started\n")


def test_a_pod_is_ready_when_first_seen_so() -> None:
    watch = PodWatch()
    watch.see(EventType.ADDED, {"metadata": {"name": "p1"}})
    assert not watch.ready
    watch.see(EventType.MODIFIED, _READY)
    first = watch.ready["p1"]
    watch.see(EventType.MODIFIED, _READY)
    assert watch.ready == {"p1": first}
    watch.see(EventType.DELETED, _READY)
    watch.wait(["p1"], watch.gone)


def test_a_burst_counts_its_first_and_last_pod() -> None:
    burst = Burst()
    burst.add([2.0, 1.0, 3.0], refused=False)
    burst.add([1.5, 9.0], refused=True)
    assert (burst.first, burst.last, burst.refused) == ([1.0, 1.5], [3.0, 9.0], 1)
