"""The supervisor's client: what it returns, and how each failure is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from api.mps import supervisor_v1_pb2 as pb
from api.mps.services import PROTOCOL, SUPERVISOR
from dra_driver.errors import HardwareError
from dra_driver.mps import errors
from dra_driver.mps.client import SupervisorClient
from dra_driver.mps.group import NAMED, GroupState, GroupStatus, MpsGroup, MpsShare, ShareStatus
from tests.kubelet_plugin.fakes import short_folder
from tests.mps.scripted_supervisor import ScriptedSupervisor

GROUP = MpsGroup("claim-1", ("GPU-a",), ("GPU-a",), 50)
NAMED_GROUP = MpsGroup("claim-1", ("GPU-a",), ("GPU-a",), protocol=NAMED)
PATIENCE = 20.0


@pytest.fixture
def path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "supervisor.sock"


def test_a_group_is_started_listed_and_stopped(path: Path) -> None:
    client = SupervisorClient(path)
    with ScriptedSupervisor(path):
        ready = client.start(GROUP)
        assert ready == GroupStatus(GROUP, GroupState.READY, pid=17)
        assert client.groups() == (ready,)
        client.stop(GROUP.id)
        assert client.groups() == ()


def test_shares_are_put_and_removed(path: Path) -> None:
    client, share = SupervisorClient(path), MpsShare("a", {"GPU-a": 1024})
    with ScriptedSupervisor(path):
        assert client.protocols() == (2, 3)
        client.start(NAMED_GROUP)
        assert client.put_share(NAMED_GROUP.id, share).shares == (ShareStatus(share),)
        client.remove_share(NAMED_GROUP.id, "a")
        assert client.groups()[0].shares == ()


def test_a_supervisor_that_knows_one_protocol_only_is_not_asked_for_another(path: Path) -> None:
    """It would overlook that it was asked for, and run a group without any limits."""
    with ScriptedSupervisor(path, spoken=()) as supervisor:
        assert SupervisorClient(path).protocols() == (2,)
        with pytest.raises(errors.SupervisorVersion, match=r"version 0\.0\.1, which does not know MPS protocol 3"):
            SupervisorClient(path).start(NAMED_GROUP)
        assert supervisor.statuses == {}
        assert SupervisorClient(path).start(GROUP).state is GroupState.READY


def test_a_supervisor_without_the_calls_for_shares_is_of_another_version(path: Path) -> None:
    handlers = {
        "GetInfo": SUPERVISOR.info.handler(lambda request, context: pb.Info(version="0.0.1", protocol=PROTOCOL))
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SUPERVISOR.service, handlers),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        for call in (
            lambda: SupervisorClient(path).put_share("claim-1", MpsShare("a")),
            lambda: SupervisorClient(path).remove_share("claim-1", "a"),
        ):
            with pytest.raises(errors.SupervisorVersion, match="does not know the call"):
                call()
    finally:
        server.stop(0).wait()


def test_no_socket_says_how_to_switch_the_supervisor_on(path: Path) -> None:
    with pytest.raises(
        errors.SupervisorUnavailable, match=r"no MPS supervisor.*mpsSupervisor\.enabled.*nodeSelector.*tolerations"
    ) as caught:
        SupervisorClient(path).start(GROUP)
    assert caught.value.retryable


def test_a_socket_that_nobody_serves(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(errors.SupervisorUnavailable, match=r"does not serve"):
        SupervisorClient(path).groups()


def test_another_protocol_is_told_before_anything_is_asked(path: Path) -> None:
    with ScriptedSupervisor(path, protocol=2) as supervisor:
        with pytest.raises(errors.SupervisorVersion, match=r"protocol 2, not 1") as caught:
            SupervisorClient(path).start(GROUP)
        assert supervisor.statuses == {}
    assert caught.value.retryable


def test_something_else_on_the_socket(path: Path) -> None:
    server = grpc.server(None)  # type: ignore[arg-type]  # it serves nothing, so it needs no threads
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        with pytest.raises(errors.MpsError):
            SupervisorClient(path).groups()
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.GroupRefused, False),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.GroupDiffers, True),
        (grpc.StatusCode.UNAVAILABLE, errors.SupervisorUnavailable, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.GroupTimeout, True),
        (grpc.StatusCode.INTERNAL, errors.GroupFailed, True),
    ],
)
def test_what_the_supervisor_says_becomes_an_error(
    path: Path, code: grpc.StatusCode, kind: type[HardwareError], retryable: bool
) -> None:
    with ScriptedSupervisor(path) as supervisor:
        supervisor.refuse = (code, "because of this")
        for call in (lambda: SupervisorClient(path).start(GROUP), lambda: SupervisorClient(path).stop(GROUP.id)):
            with pytest.raises(kind, match="because of this") as caught:
                call()
            assert caught.value.retryable is retryable
            assert "does not serve" not in str(caught.value)


def test_a_watch_tells_each_change_and_comes_back_with_the_supervisor(path: Path) -> None:
    told: SimpleQueue[tuple[GroupStatus, ...]] = SimpleQueue()
    watch = SupervisorClient(path).watch(told.put)
    supervisor = ScriptedSupervisor(path)
    ready, dead = GroupStatus(GROUP, GroupState.READY), GroupStatus(GROUP, GroupState.DEAD, "it was killed")
    watch.start()
    try:
        with supervisor:
            assert told.get(timeout=PATIENCE) == ()
            supervisor.set([ready])
            assert told.get(timeout=PATIENCE) == (ready,)
            assert watch.trouble == ""
        supervisor.statuses = {GROUP.id: dead}
        with supervisor:
            assert told.get(timeout=PATIENCE) == (dead,)
    finally:
        assert watch.stop()


def test_a_watch_says_why_it_has_no_connection(path: Path) -> None:
    watch = SupervisorClient(path).watch(lambda groups: None)
    watch.start()
    try:
        while not watch.trouble:
            watch.loop.sleep(0.01)
        assert "no MPS supervisor" in watch.trouble
        assert watch.loop.errors == 0  # a node without MPS is nothing to log about
    finally:
        assert watch.stop()
