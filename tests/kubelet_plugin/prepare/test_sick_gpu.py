"""A GPU whose driver does not answer: who waits for it, who does not, and who is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet.services import DRA_V1
from dra_driver.errors import DriverError, PrepareTimeout
from dra_driver.hardware.model import GpuInstance
from dra_driver.observability.events import ObjectRef
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.endpoint.dra_service import DraService
from kubelet_plugin.endpoint.servers import DRA_THREADS
from kubelet_plugin.node.unix_server import UnixServer
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.telling.stuck_work import StuckWorkCollector, StuckWorkEvents, stuck_check
from tests.devices.recorded import recorded
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result

SICK, HEALTHY = "gpu-0", "gpu-1"


class Hang:
    """Calls about one GPU do not return until :meth:`end`."""

    def __init__(self, node: TestNode, gpu: str = "GPU-0") -> None:
        self._gpu = gpu
        self._over = threading.Event()
        self.hanging = 0
        self._mode, self._instances = node.fake_mig.mode, node.fake_mig.instances
        node.fake_mig.mode = self.mode  # type: ignore[method-assign]
        node.fake_mig.instances = self.instances  # type: ignore[method-assign]

    def mode(self, gpu_uuid: str) -> tuple[bool, bool]:
        self._hang(gpu_uuid)
        return self._mode(gpu_uuid)

    def instances(self, gpu_uuid: str) -> tuple[GpuInstance, ...]:
        self._hang(gpu_uuid)
        return self._instances(gpu_uuid)

    def _hang(self, gpu_uuid: str) -> None:
        if gpu_uuid == self._gpu and not self._over.is_set():
            self.hanging += 1
            assert self._over.wait(60)

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def node(tmp_path: Path) -> TestNode:
    return TestNode(tmp_path, on=recorded("h100-sxm5-80gb", 2))


@pytest.fixture
def hang(node: TestNode) -> Iterator[Hang]:
    hang = Hang(node)
    yield hang
    hang.end()


@pytest.fixture
def engine(node: TestNode, hang: Hang) -> Iterator[PrepareEngine]:
    engine = node.engine()
    yield engine
    hang.end()
    engine.stop()


def prepare(engine: PrepareEngine, uid: str, timeout: float = 10) -> object:
    return engine.prepare([ref(uid)], timeout=timeout)[uid]


def seconds(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@contextmanager
def callers(count: int, call: Callable[[int], object]) -> Iterator[list[object]]:
    """So many calls at once, each on a thread of its own, as the server has them."""
    answers: list[object] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(call(n)), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join(60)


def claim_threads() -> int:
    return sum(thread.name.startswith("claim-") for thread in threading.enumerate())


def test_claims_that_pile_up_on_it_take_one_thread_and_no_time_from_others(
    node: TestNode, engine: PrepareEngine, hang: Hang
) -> None:
    for number in range(200):
        node.claims.add(claim(f"sick-{number}", result(SICK)))
    node.claims.add(claim("well", result(HEALTHY)))
    prepare(engine, "well")
    alone = min(_pairs(engine, 5))
    before = claim_threads()
    for number in range(200):
        assert isinstance(prepare(engine, f"sick-{number}", timeout=0), PrepareTimeout)
    for _ in range(5):  # the kubelet tries again and again
        for number in range(200):
            assert isinstance(prepare(engine, f"sick-{number}", timeout=0), PrepareTimeout)
    eventually(lambda: len(engine._flights.under_way()) == 200 and hang.hanging == 1)
    eventually(lambda: sum(bool(flight.waits_for) for flight in engine._flights.under_way()) == 199)
    beside = min(_pairs(engine, 5))
    assert beside < max(20 * alone, 1.0), (alone, beside)
    hang.end()
    eventually(lambda: not engine._flights.under_way(), timeout=60)
    assert sum(entry.state is ClaimState.COMPLETED for entry in engine.entries().values()) == 2
    assert claim_threads() - before <= 64 * 3


def _pairs(engine: PrepareEngine, count: int) -> Iterator[float]:
    for _ in range(count):
        yield seconds(lambda: _pair(engine))


def _pair(engine: PrepareEngine) -> None:
    assert engine.unprepare([ref("well")], timeout=10) == {"well": None}
    assert not isinstance(prepare(engine, "well"), DriverError)


def test_it_holds_one_thread_however_many_wait(node: TestNode, engine: PrepareEngine, hang: Hang) -> None:
    for number in range(100):
        node.claims.add(claim(f"sick-{number}", result(SICK)))
        prepare(engine, f"sick-{number}", timeout=0)
    eventually(lambda: sum(bool(flight.waits_for) for flight in engine._flights.under_way()) == 99)
    for number in range(100):  # and what comes after them, of the same claims
        engine.unprepare([ref(f"sick-{number}")], timeout=0)
    prepares = engine._pilot._workers["prepare"]
    eventually(lambda: prepares._tasks.empty() and hang.hanging == 1)
    busy = [flight for flight in engine._flights.under_way() if not flight.waits_for and flight.after is None]
    assert len(busy) == 1


def test_what_was_let_in_does_not_keep_it_behind_an_api_server_that_does_not_answer(
    node: TestNode, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_plugin.prepare.pilot._MAX_THREADS", 2)
    engine = node.engine()
    for uid in ("sick", "next"):
        node.claims.add(claim(uid, result(SICK)))
        prepare(engine, uid, timeout=0)
        eventually(lambda: hang.hanging == 1)
    eventually(lambda: any(flight.waits_for for flight in engine._flights.under_way()))
    node.claims.gate = threading.Event()
    for uid in ("read-1", "read-2", "read-3"):
        prepare(engine, uid, timeout=0)
    hang.end()
    try:
        assert engine.unprepare([ref("sick")], timeout=5) == {"sick": None}
    finally:
        node.claims.gate.set()
        engine.stop()


def test_admin_access_to_it_takes_one_thread_too(node: TestNode, engine: PrepareEngine, hang: Hang) -> None:
    for number in range(40):
        node.claims.add(claim(f"admin-{number}", result(SICK, adminAccess=True)))
        prepare(engine, f"admin-{number}", timeout=0)
    eventually(lambda: sum(bool(flight.waits_for) for flight in engine._flights.under_way()) == 39)
    assert hang.hanging == 1


def test_one_claim_of_a_call_does_not_keep_the_others_gpus(node: TestNode, engine: PrepareEngine, hang: Hang) -> None:
    """A pod has a claim on each GPU: what holds the healthy one is done, whatever the sick one does."""
    node.claims.add(claim("sick", result(SICK)), claim("well", result(HEALTHY)))
    answers = engine.prepare([ref("sick"), ref("well")], timeout=0.5)
    assert isinstance(answers["sick"], PrepareTimeout)
    assert isinstance(answers["well"], tuple)
    with engine.try_gpu(node.machine.gpus[1].uuid) as free:
        assert free


def test_a_caller_is_told_whom_it_waits_for(node: TestNode, engine: PrepareEngine, hang: Hang) -> None:
    node.claims.add(claim("first", result(SICK)), claim("second", result(SICK)))
    prepare(engine, "first", timeout=0)
    eventually(lambda: hang.hanging == 1)
    said = str(prepare(engine, "second", timeout=0.2))
    assert "waiting for lock device-GPU-0" in said
    assert "prepare of claim default/first:first is at step: looking at the hardware" in said


def test_many_callers_are_answered_soon_and_their_claims_prepared_all_the_same(
    node: TestNode, engine: PrepareEngine, hang: Hang
) -> None:
    """Each caller keeps a thread of the server, which has a number of them."""
    for number in range(60):
        node.claims.add(claim(f"sick-{number}", result(SICK, shareID=f"share-{number}")))
    with callers(40, lambda number: prepare(engine, f"sick-{number}", timeout=4)):
        eventually(lambda: engine._callers >= 32)
        late = seconds(lambda: prepare(engine, "sick-50", timeout=30))
    assert late < 3, "32 wait as long as they like, a further one for half a second"


def test_it_does_not_hold_up_the_start(node: TestNode) -> None:
    for uid, device in (("sick", SICK), ("well", HEALTHY)):
        node.claims.add(claim(uid, result(device)))
    node.machine = node.fake_mig.machine(node.machine)
    before = node.engine()
    node.fake_mig.by_hand("GPU-0", 19, 0)
    node.fake_mig.destroy_by_hand("GPU-0", 1)  # MIG mode stays on, so that a step has to turn it off
    assert isinstance(prepare(before, "sick"), tuple)
    assert isinstance(prepare(before, "well"), tuple)
    before.stop()
    hang = Hang(node)
    node.cdi.remove("well")
    after = node.engine(start=False, start_seconds=0.3)
    recovered = after.start()
    assert recovered.postponed == ("sick",)
    assert recovered.restored == ("well",)
    assert node.listener.postponed == [("sick",)]
    assert after.unprepare([ref("well")], timeout=10) == {"well": None}
    hang.end()
    eventually(lambda: not after._flights.under_way())
    assert after.entries()["sick"].state is ClaimState.COMPLETED
    after.stop()


def test_admin_access_at_the_start_takes_one_thread_too(node: TestNode) -> None:
    node.fake_mig.by_hand("GPU-0", 19, 0)
    node.machine = node.fake_mig.machine(node.machine)
    before = node.engine()
    for number in range(20):
        node.claims.add(claim(f"admin-{number}", result("gpu-0-mig-1g10gb-19-0", adminAccess=True)))
        assert isinstance(prepare(before, f"admin-{number}"), tuple)
    before.stop()
    hang = Hang(node)
    after = node.engine(start=False, start_seconds=0.3)
    assert len(after.start().postponed) == 20
    assert hang.hanging == 1
    hang.end()
    eventually(lambda: not after._flights.under_way())
    after.stop()


def test_it_does_not_hold_up_the_end(node: TestNode, engine: PrepareEngine, hang: Hang) -> None:
    node.claims.add(claim("sick", result(SICK)))
    prepare(engine, "sick", timeout=0)
    eventually(lambda: hang.hanging == 1)
    assert seconds(lambda: engine.stop(timeout=0.1)) < 5
    stuck = [thread for thread in threading.enumerate() if thread.name.startswith("claim-") and not thread.daemon]
    assert stuck == [], "a thread that is not a daemon would keep the process from ending"


class Recorder:
    """Events that were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def event(self, regarding: ObjectRef, kind: str, reason: str, message: str) -> None:
        self.told.append((str(kind), reason, message))


def test_people_are_told_which_gpu_it_is(
    node: TestNode, engine: PrepareEngine, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_plugin.telling.stuck_work.SLOW_SECONDS", 0.05)
    monkeypatch.setattr("kubelet_plugin.telling.stuck_work.TOLD_SECONDS", 0.05)
    registry, recorder = CollectorRegistry(), Recorder()
    registry.register(StuckWorkCollector(engine.stuck))
    events = StuckWorkEvents(engine.stuck, recorder, ObjectRef("v1", "Node", "node-0"), after=0.05)  # type: ignore[arg-type]
    assert stuck_check(engine.stuck) is None
    node.claims.add(claim("sick", result(SICK)), claim("next", result(SICK)))
    prepare(engine, "sick", timeout=0)
    eventually(lambda: hang.hanging == 1)
    prepare(engine, "next", timeout=0)
    eventually(lambda: engine.stuck(0.05) and engine.stuck(0.05)[0].waiting == 1)
    said = stuck_check(engine.stuck)
    assert said is not None
    assert "GPU GPU-0 does not answer: prepare of claim default/sick:sick has been at step" in said
    assert "1 other claims wait for it" in said
    assert b'gpu_dra_stuck_waiting{gpu="GPU-0",operation="prepare"} 1.0' in generate_latest(registry)
    events.start()
    eventually(lambda: recorder.told)
    assert recorder.told[0][:2] == ("Warning", "GpuDoesNotAnswer")
    assert "drain the node and reset the GPU" in recorder.told[0][2]
    hang.end()
    eventually(lambda: any(reason == "GpuAnswersAgain" for _kind, reason, _text in recorder.told))
    assert sum(reason == "GpuDoesNotAnswer" for _kind, reason, _text in recorder.told) == 1
    events.stop()
    assert stuck_check(engine.stuck) is None


def test_the_server_answers_for_healthy_gpus_while_every_pod_of_a_node_asks_for_the_sick_one(
    node: TestNode, engine: PrepareEngine, hang: Hang, root: Path
) -> None:
    """110 pods are what a node may have; each call keeps a thread of the server while it waits."""
    for number in range(110):
        node.claims.add(claim(f"sick-{number}", result(SICK)))
    node.claims.add(claim("well", result(HEALTHY)))
    server = UnixServer("dra-service", root / "dra.sock", DRA_THREADS, DraService(engine).handlers())
    server.start()
    with grpc.insecure_channel(f"unix:{root / 'dra.sock'}") as channel:
        client = DRA_V1.client(channel)
        with callers(110, lambda number: client.prepare(_request(f"sick-{number}"), 5.0)):
            eventually(lambda: engine._callers >= 32 and hang.hanging == 1)
            answer = client.prepare(_request("well"), 4.0)
            assert answer.claims["well"].error == ""
            assert [device.device_name for device in answer.claims["well"].devices] == [HEALTHY]
            assert not client.unprepare(_unrequest("well"), 4.0).claims["well"].error
    server.stop(0.5)


def _request(uid: str) -> v1.NodePrepareResourcesRequest:
    return v1.NodePrepareResourcesRequest(claims=[v1.Claim(namespace="default", name=uid, uid=uid)])


def _unrequest(uid: str) -> v1.NodeUnprepareResourcesRequest:
    return v1.NodeUnprepareResourcesRequest(claims=[v1.Claim(namespace="default", name=uid, uid=uid)])
