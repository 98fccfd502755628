"""Eight callers make and delete MIG devices of mixed profiles on one node, over the simulated NVML and with its errors.

The callers do what the kubelet does: they try again what failed. What the scheduler does, a small table does: no two
claims have overlapping placements.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dra_driver.devices.naming import MigName, mig_name, parse_name
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.kinds.mig.place import MigPlace, place_of
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.devices.recorded import recorded
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.kinds.mig.fake import FakeMig
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode, first_gpus
from tests.long_runs import fast_folder, steps

_ROUNDS = steps(200, 104)
_CALLERS = 8
_TRIES = 6
_KEPT = 3  # claims that a caller holds at once, at most


class Scheduler:
    """Which placements are taken."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine = machine
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._taken: dict[str, MigPlace] = {}

    def allocate(self, uid: str) -> str | None:
        """A device that is free; None when chance finds none."""
        with self._lock:
            for _ in range(40):
                gpu = self._random.choice(self._machine.gpus)
                profile = self._random.choice(gpu.mig.profiles if gpu.mig else ())
                name = mig_name(gpu.minor, profile.name, profile.id, self._random.choice(profile.placements).start)
                parsed = parse_name(name)
                place = place_of(parsed, gpu) if isinstance(parsed, MigName) else None
                assert place is not None
                # One instance of a GPU can have the media extensions: a counter says that to a real scheduler.
                others = [each for each in self._taken.values() if each.gpu_uuid == gpu.uuid]
                second_me = "+me" in place.profile_name and any("+me" in each.profile_name for each in others)
                if not second_me and not any(place.excludes(other) for other in others):
                    self._taken[uid] = place
                    return name
        return None

    def free(self, uid: str) -> None:
        with self._lock:
            del self._taken[uid]


class Caller:
    """One of the kubelet's threads. ``errors``: what a retry has cured."""

    def __init__(self, number: int, node: TestNode, engine: PrepareEngine, scheduler: Scheduler) -> None:
        self._number = number
        self._node = node
        self._engine = engine
        self._scheduler = scheduler
        self.errors: list[str] = []

    def run(self, rounds: int) -> None:
        held: list[str] = []
        for number in range(rounds):
            uid = f"u{self._number}-{number}"
            while (device := self._scheduler.allocate(uid)) is None:
                if held:
                    self._delete(held.pop(0))
                time.sleep(0.001)
            self._node.claims.add(claim(uid, result(device)))
            self._again(Operation.PREPARE, uid)
            held.append(uid)
            if len(held) == _KEPT:
                self._delete(held.pop(0))
        for uid in held:
            self._delete(uid)

    def _delete(self, uid: str) -> None:
        self._again(Operation.UNPREPARE, uid)
        self._scheduler.free(uid)

    def _again(self, operation: Operation, uid: str) -> None:
        call = self._engine.prepare if operation is Operation.PREPARE else self._engine.unprepare
        for _ in range(_TRIES):
            answer = call([ref(uid)], timeout=45)[uid]
            if not isinstance(answer, DriverError):
                return
            self.errors.append(str(answer))
            assert answer.retryable, answer
            time.sleep(0.01)
        raise AssertionError(f"{_TRIES} tries did not help: {self.errors[-1]}")


@pytest.fixture
def node() -> Iterator[SimulatedNode]:
    with fast_folder() as folder:
        made = SimulatedNode(folder, first_gpus("h100-sxm5-80gb", 4))
        yield made
        made.close()


def test_two_hundred_rounds_of_mixed_profiles_by_eight_callers(node: SimulatedNode) -> None:
    for function, code in (
        ("nvmlDeviceCreateGpuInstanceWithPlacement", Return.UNKNOWN),
        ("nvmlGpuInstanceCreateComputeInstance", Return.UNKNOWN),
        ("nvmlComputeInstanceDestroy", Return.IN_USE),
        ("nvmlGpuInstanceDestroy", Return.IN_USE),
        ("nvmlDeviceSetMigMode", Return.IN_USE),
    ):
        faults.inject_error(node.state_file, function, code, times=4)
    engine = node.engine()
    scheduler = Scheduler(node.machine, seed=7)
    callers = [Caller(number, node, engine, scheduler) for number in range(_CALLERS)]
    with ThreadPoolExecutor(_CALLERS) as pool:
        for done in [pool.submit(caller.run, _ROUNDS // _CALLERS) for caller in callers]:
            done.result()
    engine.stop()
    assert len([error for caller in callers for error in caller.errors]) >= 10, "errors were cured by trying again"
    assert node.everything() == {}
    assert not any(node.control.mode(gpu.uuid)[0] for gpu in node.machine.gpus)
    assert node.cdi.claim_uids() == ()
    assert node.left_overs() == []
    assert not (node.host / "proc/driver/nvidia/capabilities/gpu0/mig/gi1").exists()


def test_a_gpu_that_is_slow_holds_up_no_other() -> None:
    """What takes seconds on one GPU; the bench measures how little the others feel of it."""
    with fast_folder() as folder:
        node = TestNode(folder, on=recorded("h100-sxm5-80gb", 3))
        slow: FakeMig = node.fake_mig
        released = slow.held["create_gpu_instance", "GPU-0"] = threading.Event()
        engine = node.engine()
        for minor in range(3):
            node.claims.add(
                *(claim(f"u{minor}-{each}", result(mig_name(minor, "1g.10gb", 19, each))) for each in range(7))
            )
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(engine.prepare, [ref("u0-0")], timeout=45)
            try:
                eventually(lambda: "create_gpu_instance" in slow.calls)
                for each in range(7):
                    answers = engine.prepare([ref(f"u1-{each}"), ref(f"u2-{each}")], timeout=45)
                    assert not [answer for answer in answers.values() if isinstance(answer, DriverError)]
                assert not waiting.done()
            finally:
                released.set()
            assert not isinstance(waiting.result()["u0-0"], DriverError)
        engine.stop()
