"""The health check finds what is wrong with the sockets, through the sockets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet.services import DRA_V1
from dra_driver.observability.endpoint import HttpEndpoint
from kubelet_plugin.endpoint.connection import KubeletConnection
from kubelet_plugin.endpoint.self_check import CheckTimes, SocketCheck, registration_check
from kubelet_plugin.endpoint.servers import DRA_THREADS
from tests.kubelet_plugin.fakes import DRIVER, InProcessPlugin, ScriptedPreparer, eventually


def check_of(plugin: InProcessPlugin, *, driver: str = DRIVER, seconds: float = 1.0, fresh: float = 0.0) -> SocketCheck:
    return SocketCheck(driver, plugin.paths, plugin.calls, times=CheckTimes(seconds, seconds, fresh))


Blocked = tuple[InProcessPlugin, threading.Event]


@contextmanager
def blocked(root: Path, count: int, *, deadline: float, call_grace: float = 10.0) -> Iterator[Blocked]:
    """A plugin whose engine does not come back from ``count`` prepares, whatever their ``deadline``, until released."""
    release = threading.Event()
    preparer = ScriptedPreparer()
    preparer.before = lambda operation, claims, timeout: (release.wait(20), None)[1]
    plugin = InProcessPlugin(root, preparer, call_grace=call_grace)
    plugin.start()
    try:
        with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel:
            # A deadline counts from the call, not from the connection: a busy machine connects in more than one.
            grpc.channel_ready_future(channel).result(timeout=30)
            stub = DRA_V1.prepare.stub(channel)
            claims = [v1.Claim(namespace="ns", name="n", uid=str(number)) for number in range(count)]
            calls = [stub.future(v1.NodePrepareResourcesRequest(claims=[claim]), timeout=deadline) for claim in claims]
            eventually(lambda: len(preparer.prepare_calls) == count)
            yield plugin, release
            release.set()
            eventually(lambda: all(call.done() for call in calls))
            eventually(lambda: plugin.calls.count() == 0)
            check = check_of(plugin)
            assert (check.ready(), check.alive()) == (None, None)
    finally:
        release.set()
        plugin.stop(grace=0)


def test_a_healthy_plugin_and_each_socket_missing(root: Path) -> None:
    preparer = ScriptedPreparer()
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    check = check_of(plugin)
    try:
        assert (check.ready(), check.alive()) == (None, None)
        assert preparer.prepare_calls == []
        assert plugin.observer.calls == []
        assert "is served by driver 'gpu.nvidia.com'" in str(check_of(plugin, driver="other").alive())
        plugin.paths.dra.unlink()
        assert "an empty NodePrepareResources on" in str(check.alive())
        assert "an empty NodePrepareResources on" in str(check.ready())
        plugin.paths.registration.unlink()
        assert "GetInfo on" in str(check.alive())
        assert "GetInfo on" in str(check.ready())
    finally:
        plugin.stop(grace=0)


def test_threads_taken_by_calls_in_time_make_unready_but_not_dead(root: Path) -> None:
    """So many claims that wait, for an API server that is away: a restart would only interrupt them."""
    with blocked(root, DRA_THREADS, deadline=30) as (plugin, _):
        check = check_of(plugin, seconds=0.1)
        assert "DEADLINE_EXCEEDED" in str(check.ready())
        assert f"{DRA_THREADS} calls under way, 0 of them past their deadline" in str(check.ready())
        assert check.alive() is None


def test_threads_taken_by_calls_past_their_deadline_are_a_dead_plugin(root: Path) -> None:
    with blocked(root, DRA_THREADS, deadline=3, call_grace=0.1) as (plugin, _):
        check = check_of(plugin, seconds=0.1)
        eventually(lambda: plugin.calls.stuck() == DRA_THREADS)
        assert f"{DRA_THREADS} of them past their deadline" in str(check.alive())
        assert check.ready() == check.alive()


def test_a_busy_plugin_without_its_socket_is_dead(root: Path) -> None:
    with blocked(root, DRA_THREADS, deadline=30) as (plugin, _):
        moved = plugin.paths.dra.rename(plugin.paths.dra.with_name("moved"))
        assert "UNAVAILABLE" in str(check_of(plugin, seconds=0.5).alive())
        moved.rename(plugin.paths.dra)


def test_fewer_calls_that_wait_leave_the_plugin_ready(root: Path) -> None:
    with blocked(root, DRA_THREADS - 1, deadline=30) as (plugin, _):
        check = check_of(plugin)
        assert (check.ready(), check.alive()) == (None, None)


def test_the_endpoint_turns_within_the_time_of_a_probe_and_comes_back(root: Path) -> None:
    """With the times of the shipped configuration; probes at the same time share one look."""
    probe_seconds = 5
    with blocked(root, DRA_THREADS, deadline=3, call_grace=0.1) as (plugin, release):
        check = SocketCheck(DRIVER, plugin.paths, plugin.calls)
        endpoint = HttpEndpoint(
            "127.0.0.1:0", CollectorRegistry(), {"sockets": check.ready}, liveness={"sockets": check.alive}
        )
        endpoint.start()

        def probe(path: str) -> int:
            connection = HTTPConnection("127.0.0.1", endpoint.port, timeout=probe_seconds)
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            finally:
                connection.close()

        try:
            eventually(lambda: plugin.calls.stuck() == DRA_THREADS)
            with futures.ThreadPoolExecutor(8) as pool:
                assert list(pool.map(probe, ["/healthz", "/readyz"] * 4)) == [503] * 8
            release.set()
            eventually(lambda: probe("/healthz") == 200 and probe("/readyz") == 200)
        finally:
            endpoint.stop()


def test_questions_at_the_same_time_cost_one_look(root: Path) -> None:
    plugin = InProcessPlugin(root, ScriptedPreparer())
    plugin.start()
    try:
        check = check_of(plugin, fresh=30)
        with futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: check.alive(), range(4))) == [None] * 4
        plugin.paths.dra.unlink()
        assert check.ready() is None, "the finding is fresh still"
        assert check_of(plugin, fresh=30).ready() is not None
    finally:
        plugin.stop(grace=0)


def test_the_check_does_not_pass_for_the_kubelet(root: Path) -> None:
    plugin = InProcessPlugin(root, ScriptedPreparer())
    connection = KubeletConnection(plugin.paths.dra, ignored_pid=os.getpid())
    connection.accepted()
    plugin.start()
    seen: list[bool] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(connection.alive())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        check = check_of(plugin)
        assert [check.alive() for _ in range(5)] == [None] * 5
    finally:
        done.set()
        looking.join()
        plugin.stop(grace=0)
    assert seen
    assert not any(seen)


def test_readiness_is_the_kubelets_word() -> None:
    connection = KubeletConnection(Path("/none"))
    assert registration_check(connection) == "the kubelet has not registered us"
    connection.refused("no common version")
    assert registration_check(connection) == "the kubelet refused this plugin: no common version"
    connection.accepted()
    assert registration_check(connection) is None
