from __future__ import annotations

import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric

from dra_driver.kube.interface import NODES
from dra_driver.kube.workqueue import WorkQueue
from dra_driver.observability.checks import Checks
from dra_driver.observability.endpoint import LIMITS, HttpEndpoint
from dra_driver.observability.metrics import QueueCollector, ReflectorCollector, new_registry


class Switch:
    problem: str | None = None

    def __call__(self) -> str | None:
        return self.problem


@pytest.fixture
def ready() -> Switch:
    return Switch()


@pytest.fixture
def live() -> Switch:
    return Switch()


@pytest.fixture
def endpoint(ready: Switch, live: Switch) -> Iterator[HttpEndpoint]:
    registry = new_registry("test")
    Counter("gpu_dra_things", "Things.", registry=registry).inc(3)
    endpoint = HttpEndpoint("127.0.0.1:0", registry, {"caches": ready}, liveness={"loop": live})
    endpoint.start()
    yield endpoint
    endpoint.stop()


def get(endpoint: HttpEndpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_serves_metrics_and_build_info(endpoint: HttpEndpoint) -> None:
    status, text = get(endpoint, "/metrics")
    assert status == 200
    assert "gpu_dra_things_total 3.0" in text
    assert 'gpu_dra_build_info{component="test",version="' in text
    assert "process_resident_memory_bytes" in text


def test_checks_decide_ready_and_live_apart(endpoint: HttpEndpoint, ready: Switch, live: Switch) -> None:
    assert get(endpoint, "/readyz") == (200, "ok\n")
    ready.problem = "not synced"
    assert get(endpoint, "/readyz") == (503, "caches: not synced\n")
    assert get(endpoint, "/healthz?verbose") == (200, "ok\n")
    live.problem = "stuck"
    assert get(endpoint, "/healthz") == (503, "loop: stuck\n")
    assert get(endpoint, "/other")[0] == 404


def test_check_that_raises_is_a_problem() -> None:
    def broken() -> str | None:
        raise RuntimeError("oops")

    checks = Checks({"x": broken, "y": lambda: None}, patience=5)
    assert checks.problems() == {"x": "check failed: RuntimeError('oops')"}


class Hanging:
    """A check, or a collector of metrics, that hangs until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.calls = 0

    def __call__(self) -> str | None:
        self.calls += 1
        self.release.wait(30)
        return None

    def collect(self) -> list[Metric]:
        self()
        return []


def test_a_check_that_hangs_is_told_and_keeps_nobody_else_from_an_answer() -> None:
    hanging = Hanging()
    sick = Switch()
    sick.problem = "fever"
    endpoint = HttpEndpoint("127.0.0.1:0", new_registry("test"), {"stuck": hanging, "sick": sick}, patience=0.2)
    endpoint.start()
    try:
        before = threading.active_count()
        for _ in range(3 * LIMITS.threads):
            status, text = get(endpoint, "/readyz")
            assert status == 503
            assert re.fullmatch(r"stuck: the check has been hanging for \d+ s\nsick: fever\n", text)
            assert get(endpoint, "/healthz") == (200, "ok\n")
        assert hanging.calls == 1, "it is not called again before it has come back"
        assert threading.active_count() <= before + 1 + LIMITS.threads
        hanging.release.set()
        eventually(lambda: get(endpoint, "/readyz") == (503, "sick: fever\n"))
    finally:
        hanging.release.set()
        endpoint.stop()


def test_a_collection_of_metrics_that_hangs_keeps_nobody_from_an_answer() -> None:
    registry, hanging = CollectorRegistry(), Hanging()
    registry.register(cast(Any, hanging))
    endpoint = HttpEndpoint("127.0.0.1:0", registry, patience=0.2)
    endpoint.start()
    try:
        for _ in range(2 * LIMITS.threads):
            status, text = get(endpoint, "/metrics")
            assert (status, text.partition(" has been")[0]) == (503, "the collection of metrics")
        assert get(endpoint, "/healthz") == (200, "ok\n")
        assert hanging.calls == 1
        hanging.release.set()
        eventually(lambda: get(endpoint, "/metrics")[0] == 200)
    finally:
        hanging.release.set()
        endpoint.stop()


def test_clients_that_dawdle_keep_nobody_from_an_answer() -> None:
    limits = replace(LIMITS, connections=16, request_seconds=1.0)
    endpoint = HttpEndpoint("127.0.0.1:0", new_registry("test"), limits=limits)
    endpoint.start()
    try:
        with ExitStack() as stack:
            before = threading.active_count()
            for _ in range(3 * limits.connections):
                idle = stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), timeout=5))
                idle.sendall(b"GET /healthz HT")
                assert get(endpoint, "/healthz") == (200, "ok\n")
            assert get(endpoint, "/metrics")[0] == 200
            assert threading.active_count() <= before + limits.threads + 1
            eventually(lambda: has_ended(idle))  # a byte now and then does not help
    finally:
        endpoint.stop()


def has_ended(connection: socket.socket) -> bool:
    """After one byte more."""
    try:
        connection.send(b"x")
        connection.settimeout(0.05)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_client_that_goes_away_does_no_harm(endpoint: HttpEndpoint) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as connection:
        connection.sendall(b"GET /metrics HT")
    assert get(endpoint, "/healthz")[0] == 200


def test_all_interfaces_and_restart() -> None:
    endpoint = HttpEndpoint(":0", new_registry("test"))
    for _ in range(2):
        endpoint.start()
        assert get(endpoint, "/readyz")[0] == 200
        endpoint.stop()


def test_taken_port_names_the_address(endpoint: HttpEndpoint) -> None:
    other = HttpEndpoint(f"127.0.0.1:{endpoint.port}", new_registry("test"))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{endpoint.port}"):
        other.start()


@pytest.mark.parametrize("address", ["8080", "host:", "host:http", ":70000"])
def test_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not host:port"):
        HttpEndpoint(address, new_registry("test"))


def test_collectors_read_reflectors_and_queues_when_scraped() -> None:
    class Reflecting:
        name = NODES.plural
        relists = 4
        failures = 2

        def last_event_age(self) -> float:
            return 1.5

        def __len__(self) -> int:
            return 7

    queue: WorkQueue[str] = WorkQueue("pools")
    registry = new_registry("test")
    registry.register(ReflectorCollector([Reflecting()]))
    registry.register(QueueCollector([queue]))
    queue.add("a")
    labels = {"resource": "nodes"}
    assert registry.get_sample_value("gpu_dra_reflector_relists_total", labels) == 4
    assert registry.get_sample_value("gpu_dra_reflector_failures_total", labels) == 2
    assert registry.get_sample_value("gpu_dra_reflector_last_event_age_seconds", labels) == 1.5
    assert registry.get_sample_value("gpu_dra_reflector_objects", labels) == 7
    assert registry.get_sample_value("gpu_dra_workqueue_depth", {"queue": "pools"}) == 1
