"""Registration and DRA servers on real sockets, asked the way a kubelet asks."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet import registration_v1_pb2 as registration
from api.kubelet.services import DRA_V1, REGISTRATION
from dra_driver.errors import StateError
from kubelet_plugin.endpoint.connection import open_connections
from kubelet_plugin.endpoint.servers import DRA_THREADS
from kubelet_plugin.node.message_deadline import MessageDeadline
from kubelet_plugin.node.socket_file import Listener, probe
from tests.kubelet_plugin.fakes import DRIVER, InProcessPlugin, ScriptedPreparer, eventually


@pytest.fixture
def plugin(root: Path) -> Iterator[InProcessPlugin]:
    plugin = InProcessPlugin(root, ScriptedPreparer(), pod_uid="uid-1")
    plugin.start()
    yield plugin
    plugin.stop(grace=0)


def ask(path: Path) -> registration.PluginInfo:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        return REGISTRATION.client(channel).get_info(timeout=1.0)


def notify(path: Path, *, registered: bool, error: str = "") -> None:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        status = registration.RegistrationStatus(plugin_registered=registered, error=error)
        REGISTRATION.client(channel).notify(status, timeout=5.0)


def claim_request(uid: str = "a") -> v1.NodePrepareResourcesRequest:
    return v1.NodePrepareResourcesRequest(claims=[v1.Claim(namespace="ns", name="n", uid=uid)])


def test_who_we_are(plugin: InProcessPlugin) -> None:
    info = ask(plugin.paths.registration)
    assert (info.type, info.name, info.endpoint) == ("DRAPlugin", DRIVER, str(plugin.paths.dra))
    assert list(info.supported_versions) == ["v1.DRAPlugin", "v1beta1.DRAPlugin"]


def test_sockets_are_for_their_owner_only(plugin: InProcessPlugin) -> None:
    for path in (plugin.paths.dra, plugin.paths.registration):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_notifications_are_counted_and_refusals_remembered(plugin: InProcessPlugin) -> None:
    heard: list[int] = []
    plugin.connection.on_change(lambda: heard.append(1))
    path = plugin.paths.registration
    notify(path, registered=False, error="unsupported versions")
    notify(path, registered=False, error="unsupported versions")
    assert (plugin.connection.state.refusals, plugin.connection.state.refusal) == (2, "unsupported versions")
    assert not plugin.connection.state.registered
    notify(path, registered=True)
    notify(path, registered=True)
    state = plugin.connection.state
    assert (state.registrations, state.registered, state.refusals, state.refusal) == (2, True, 0, "")
    assert len(heard) == 4


def test_a_listener_that_raises_keeps_the_others_told_and_the_kubelet_answered(plugin: InProcessPlugin) -> None:
    told: list[int] = []

    def breaks() -> None:
        raise KeyError("surprise")

    plugin.connection.on_change(breaks)
    plugin.connection.on_change(lambda: told.append(1))
    plugin.connection.accepted()
    plugin.connection.refused("no")
    assert told == [1, 1]


def test_alive_needs_both_a_registration_and_an_open_connection(plugin: InProcessPlugin) -> None:
    assert not plugin.connection.alive()
    channel = grpc.insecure_channel(f"unix:{plugin.paths.dra}")
    DRA_V1.client(channel).prepare(claim_request(), timeout=5)
    assert open_connections(plugin.paths.dra) == 1
    assert not plugin.connection.alive()  # connected, but the kubelet has not registered us
    notify(plugin.paths.registration, registered=True)
    assert plugin.connection.alive()
    channel.close()
    eventually(lambda: not plugin.connection.alive())


def test_connections_of_one_process_can_be_left_out(plugin: InProcessPlugin) -> None:
    import os

    with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel:
        DRA_V1.client(channel).prepare(claim_request(), timeout=5)
        assert open_connections(plugin.paths.dra, ignored_pid=os.getpid()) == 0
        assert open_connections(plugin.paths.dra, ignored_pid=1) == 1


def test_get_info_is_answered_while_every_prepare_hangs(root: Path) -> None:
    release = threading.Event()
    preparer = ScriptedPreparer()
    many = DRA_THREADS + 4
    preparer.before = lambda operation, claims, timeout: (release.wait(10), None)[1]
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    try:
        with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel, futures.ThreadPoolExecutor(many) as pool:
            client = DRA_V1.client(channel)
            calls = [pool.submit(client.prepare, claim_request(f"c{number}"), 10) for number in range(many)]
            eventually(lambda: len(preparer.prepare_calls) == DRA_THREADS)  # all threads of the service are busy
            started = time.monotonic()
            assert ask(plugin.paths.registration).name == DRIVER
            assert time.monotonic() - started < 1.0
            release.set()
            assert all(f"c{number}" in call.result().claims for number, call in enumerate(calls))
    finally:
        plugin.stop(grace=0)


def test_callers_that_say_nothing_keep_nobody_out_for_long(root: Path) -> None:
    """A call begins with its headers; a thread waits for the message from then on."""
    plugin = InProcessPlugin(root, ScriptedPreparer(), message_seconds=0.3)
    plugin.start()
    silent = threading.Event()

    def nothing() -> Iterator[Any]:
        silent.wait(30)
        yield from ()

    try:
        with ExitStack() as stack:
            stack.callback(silent.set)
            calls: list[Any] = []
            for path, method, count in (
                (plugin.paths.registration, REGISTRATION.get_info.path, 2),
                (plugin.paths.dra, DRA_V1.prepare.path, DRA_THREADS),
            ):
                channel = stack.enter_context(grpc.insecure_channel(f"unix:{path}"))
                calls += [channel.stream_unary(method).future(nothing()) for _ in range(count)]
            for call in calls:
                assert isinstance(call.exception(timeout=20), grpc.RpcError)
                assert call.code() is grpc.StatusCode.CANCELLED
            assert ask(plugin.paths.registration).name == DRIVER
            other = stack.enter_context(grpc.insecure_channel(f"unix:{plugin.paths.dra}"))
            assert DRA_V1.client(other).prepare(claim_request(), timeout=5).claims["a"].devices
    finally:
        plugin.stop(grace=0)


def test_a_call_that_ends_without_a_message_is_told_so(plugin: InProcessPlugin) -> None:
    with grpc.insecure_channel(f"unix:{plugin.paths.registration}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(REGISTRATION.get_info.path)(iter(()), timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_stop_removes_the_sockets_and_lets_calls_finish(root: Path) -> None:
    entered, release = threading.Event(), threading.Event()
    preparer = ScriptedPreparer()

    def wait(*_: object) -> None:
        entered.set()
        release.wait(10)

    preparer.before = wait
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel, futures.ThreadPoolExecutor(2) as pool:
        call = pool.submit(DRA_V1.client(channel).prepare, claim_request(), 10)
        assert entered.wait(5)
        stopping = pool.submit(plugin.stop, 10.0)
        eventually(lambda: not plugin.paths.dra.exists())
        assert not plugin.paths.registration.exists()
        assert not stopping.done()
        release.set()
        assert call.result().claims["a"].devices
        stopping.result(timeout=5)


def test_a_stop_does_not_wait_for_ever(root: Path) -> None:
    release = threading.Event()
    preparer = ScriptedPreparer()
    preparer.before = lambda operation, claims, timeout: (release.wait(10), None)[1]
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel, futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(DRA_V1.client(channel).prepare, claim_request(), 10)
        eventually(lambda: preparer.prepare_calls)
        started = time.monotonic()
        plugin.stop(grace=0.1)
        assert time.monotonic() - started < 3
        with pytest.raises(grpc.RpcError):
            call.result()
        release.set()


def test_a_dead_instance_is_replaced_and_a_living_one_is_not(root: Path) -> None:
    first = InProcessPlugin(root, ScriptedPreparer())
    first.start()
    second = InProcessPlugin(root, ScriptedPreparer())
    with pytest.raises(StateError, match="another process serves"):
        second.start()
    assert probe(first.paths.dra) is Listener.ALIVE
    first.stop(grace=0)
    second.start()
    assert ask(second.paths.registration).name == DRIVER
    second.stop(grace=0)


def test_when_registration_cannot_start_the_dra_service_stops_too(root: Path) -> None:
    plugin = InProcessPlugin(root, ScriptedPreparer())
    plugin.paths.registration.parent.mkdir(parents=True)
    plugin.paths.registration.touch()
    with pytest.raises(StateError, match="not a socket"):
        plugin.start()
    assert not plugin.paths.dra.exists()


def test_a_call_that_has_its_message_is_not_kept_until_its_deadline() -> None:
    """Else a thousand calls within the deadline are a thousand calls in memory."""
    deadline = MessageDeadline("x", 60.0)
    context = cast("grpc.ServicerContext", object())
    assert deadline._message(iter(["message"]), context) == "message"
    assert [wait.context for wait in deadline._waits] == [None]
