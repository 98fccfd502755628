"""Leader election against a lease server with faults: errors, dropped connections, hanging calls, other holders."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from dra_driver.kube.election import LeaderElector
from dra_driver.kube.interface import AlreadyExists, ApiError, Conflict, KubeApi, NotFound, Obj, Unavailable


class LeaseServer:
    """One Lease. ``fault`` is raised by every call while set; ``hang`` makes calls wait for ``resume``."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lease: Obj | None = None
        self.version = 0
        self.fault: Exception | None = None
        self.hang = False
        self.resume = threading.Event()
        self.writes = 0
        self.wrote = threading.Condition(self.lock)

    def get(self, _resource: object, _name: str, _namespace: str | None = None) -> Obj:
        self._trouble()
        with self.lock:
            if self.lease is None:
                raise NotFound("no lease")
            return copy.deepcopy(self.lease)

    def create(self, _resource: object, obj: Obj) -> Obj:
        self._trouble()
        with self.lock:
            if self.lease is not None:
                raise AlreadyExists("lease exists")
            return self._store(obj)

    def update(self, _resource: object, obj: Obj) -> Obj:
        self._trouble()
        with self.lock:
            if self.lease is None:
                raise NotFound("no lease")
            if obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Conflict("stale")
            return self._store(obj)

    def take_over(self, holder: str, seconds: int = 1) -> None:
        with self.lock:
            spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 4}
            self._store({"metadata": {"name": "lock", "namespace": "ns"}, "spec": spec})

    def spec(self) -> dict[str, Any]:
        with self.lock:
            assert self.lease is not None
            return dict(self.lease["spec"])

    def wait_for_writes(self, count: int) -> None:
        with self.lock:
            assert self.wrote.wait_for(lambda: self.writes >= count, timeout=5)

    def _store(self, obj: Obj) -> Obj:
        self.version += 1
        self.writes += 1
        self.lease = copy.deepcopy(obj)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        self.wrote.notify_all()
        return copy.deepcopy(self.lease)

    def _trouble(self) -> None:
        if self.hang:
            self.resume.wait(10)
        if self.fault is not None:
            raise self.fault


class Candidate:
    """An elector with short times and what its callbacks saw."""

    def __init__(self, server: LeaseServer, identity: str = "one", **options: Any) -> None:
        self.started = threading.Event()
        self.stopped = threading.Event()
        self.stopped_at = 0.0
        self.stop_calls = 0
        self.stop_event: threading.Event | None = None
        self.work_ends = threading.Event()
        self.work_ends.set()
        times: dict[str, Any] = {"lease_seconds": 1.0, "renew_deadline": 0.4, "retry_period": 0.05, **options}
        self.elector = LeaderElector(
            cast(KubeApi, server),
            namespace="ns",
            name="lock",
            identity=identity,
            on_started=self._on_started,
            on_stopped=self._on_stopped,
            **times,
        )

    def _on_started(self, stop: threading.Event) -> None:
        self.stop_event = stop
        self.started.set()
        self.work_ends.wait(5)

    def _on_stopped(self) -> None:
        self.stop_calls += 1
        self.stopped_at = time.monotonic()
        self.stopped.set()


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    server = LeaseServer()
    yield server
    server.resume.set()


@pytest.fixture
def one(server: LeaseServer) -> Iterator[Candidate]:
    candidate = Candidate(server)
    yield candidate
    server.resume.set()
    candidate.elector.stop()


def test_creates_the_lease_renews_it_and_releases_it(server: LeaseServer, one: Candidate) -> None:
    assert not one.elector.is_leader()
    one.elector.start()
    assert one.started.wait(5)
    assert one.elector.is_leader()
    assert one.elector.holds_lease_for(0.3)
    assert not one.elector.holds_lease_for(1.5)
    server.wait_for_writes(3)
    spec = server.spec()
    assert spec["holderIdentity"] == "one"
    assert spec["leaseTransitions"] == 0
    assert spec["leaseDurationSeconds"] == 1
    assert spec["renewTime"] > spec["acquireTime"]
    assert spec["renewTime"].endswith("Z")
    one.elector.stop()
    assert server.spec()["holderIdentity"] == ""
    assert one.stop_calls == 1
    assert one.stop_event is not None
    assert one.stop_event.is_set()
    assert not one.elector.is_leader()
    assert not one.elector.holds_lease_for(0)


def test_released_lease_is_taken_at_once_and_counts_a_transition(server: LeaseServer, one: Candidate) -> None:
    one.elector.start()
    assert one.started.wait(5)
    two = Candidate(server, "two")
    two.elector.start()
    server.wait_for_writes(4)
    assert not two.elector.is_leader()
    one.elector.stop()
    assert two.started.wait(5)
    assert server.spec()["leaseTransitions"] == 1
    two.elector.stop()


def test_lease_of_a_dead_holder_is_taken_only_after_its_duration(server: LeaseServer, one: Candidate) -> None:
    server.take_over("dead", seconds=1)
    began = time.monotonic()
    one.elector.start()
    assert one.started.wait(5)
    assert time.monotonic() - began >= 1.0
    assert server.spec()["leaseTransitions"] == 5


def test_own_lease_of_an_earlier_run_is_taken_without_waiting(server: LeaseServer, one: Candidate) -> None:
    server.take_over("one", seconds=60)
    one.elector.start()
    assert one.started.wait(0.9)
    assert server.spec()["leaseTransitions"] == 4


@pytest.mark.parametrize(
    "fault", [Unavailable("500"), ApiError("odd", code=418), ConnectionResetError("dropped"), KeyError("a bug")]
)
def test_every_failure_is_a_failed_renewal_and_leading_ends_on_time(
    server: LeaseServer, one: Candidate, fault: Exception
) -> None:
    one.elector.start()
    assert one.started.wait(5)
    began = time.monotonic()
    server.fault = fault
    assert one.stopped.wait(5)
    assert one.stopped_at - began < 0.7
    assert one.elector.lost()
    assert not one.elector.is_leader()
    assert one.stop_calls == 1


def test_candidate_survives_failures_until_the_api_is_back(server: LeaseServer, one: Candidate) -> None:
    server.fault = ConnectionResetError("dropped")
    one.elector.start()
    assert not one.started.wait(0.2)
    server.fault = None
    assert one.started.wait(5)


def test_short_failure_does_not_end_leading(server: LeaseServer, one: Candidate) -> None:
    one.elector.start()
    assert one.started.wait(5)
    server.fault = Unavailable("500")
    assert not one.stopped.wait(0.15)
    server.fault = None
    writes = server.writes
    server.wait_for_writes(writes + 2)
    assert one.elector.is_leader()


def test_hanging_api_server_ends_leading_on_time(server: LeaseServer, one: Candidate) -> None:
    one.elector.start()
    assert one.started.wait(5)
    began = time.monotonic()
    server.hang = True
    assert one.stopped.wait(5)
    assert one.stopped_at - began < 0.7
    assert one.stop_event is not None
    assert one.stop_event.is_set()
    assert not one.elector.holds_lease_for(0)


def test_other_holder_ends_leading(server: LeaseServer, one: Candidate) -> None:
    one.elector.start()
    assert one.started.wait(5)
    server.take_over("two", seconds=60)
    assert one.stopped.wait(5)
    assert server.spec()["holderIdentity"] == "two"
    one.elector.stop()
    assert server.spec()["holderIdentity"] == "two"


def test_other_holder_ends_leading_long_before_the_renew_deadline(server: LeaseServer) -> None:
    one = Candidate(server, lease_seconds=60, renew_deadline=30)
    one.elector.start()
    assert one.started.wait(5)
    server.take_over("two", seconds=60)
    assert one.stopped.wait(5)
    one.elector.stop()
    assert one.stop_calls == 1
    assert server.spec()["holderIdentity"] == "two"


def test_a_leader_whose_work_breaks_gives_the_lease_to_another(server: LeaseServer, one: Candidate) -> None:
    def breaks(_stop: threading.Event) -> None:
        raise KeyError("surprise")

    one.elector._on_started = breaks
    one.elector.start()
    assert one.stopped.wait(5), "it may not renew the lease of work that is not done"
    assert not one.elector.is_leader()
    one.elector.stop()
    assert server.spec()["holderIdentity"] == ""


def test_a_callback_that_breaks_at_the_end_of_leading_ends_no_thread(server: LeaseServer, one: Candidate) -> None:
    def breaks() -> None:
        raise KeyError("surprise")

    one.elector._on_stopped = breaks
    one.elector.start()
    assert one.started.wait(5)
    one.elector.stop()
    assert server.spec()["holderIdentity"] == "", "released all the same"


def test_lease_is_not_released_while_the_leader_still_works(server: LeaseServer) -> None:
    one = Candidate(server, stop_seconds=0.05)
    one.work_ends.clear()
    one.elector.start()
    assert one.started.wait(5)
    one.elector.stop()
    assert server.spec()["holderIdentity"] == "one"
    one.work_ends.set()


def test_part_of_a_second_makes_the_announced_duration_longer(server: LeaseServer) -> None:
    one = Candidate(server, lease_seconds=1.4)
    one.elector.start()
    assert one.started.wait(5)
    assert server.spec()["leaseDurationSeconds"] == 2
    one.elector.stop()


def test_paused_process_knows_that_it_no_longer_leads(server: LeaseServer) -> None:
    now = [0.0]
    elector = LeaderElector(
        cast(KubeApi, server),
        namespace="ns",
        name="lock",
        identity="one",
        on_started=lambda _stop: started.set(),
        on_stopped=lambda: None,
        lease_seconds=15,
        renew_deadline=10,
        retry_period=2,
        clock=lambda: now[0],
    )
    started = threading.Event()
    elector.start()
    assert started.wait(5)
    now[0] = 9.9
    assert elector.is_leader()
    assert elector.holds_lease_for(5)
    assert not elector.holds_lease_for(6)
    now[0] = 10.0
    assert not elector.is_leader()
    elector.stop()


def test_times_out_of_order_are_refused(server: LeaseServer) -> None:
    with pytest.raises(ValueError, match="retry period < renew deadline < lease duration"):
        LeaderElector(
            cast(KubeApi, server),
            namespace="ns",
            name="lock",
            identity="one",
            on_started=lambda _stop: None,
            on_stopped=lambda: None,
            lease_seconds=10,
            renew_deadline=10,
        )
