"""The health stream over a real socket: changes at once, repeats, several streams, ends without leftovers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet.services import DRA_V1, HEALTH_V1, HEALTH_V1ALPHA1
from api.kubelet.services import HealthService as Wire
from dra_driver.devices.policy import MigPolicy
from dra_driver.errors import StateError
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation.hardware import create_state, faults, install, uninstall
from kubelet_plugin.endpoint.dra_service import DraService
from kubelet_plugin.endpoint.registration import RegistrationService
from kubelet_plugin.endpoint.servers import DRA_THREADS, PluginServers
from kubelet_plugin.endpoint.sockets import socket_paths
from kubelet_plugin.hardware.watch import HardwareWatch
from kubelet_plugin.health.service import MAX_STREAMS, HealthService
from kubelet_plugin.health.states import DeviceUuids
from tests.kubelet_plugin.fakes import DRIVER, NODE, ScriptedPreparer, eventually

RESCAN = 0.2
UNKNOWN, HEALTHY, UNHEALTHY = 0, 1, 2


class Lab:
    """Simulated GPUs, the hardware watch on them, and the plugin's servers with the health service."""

    def __init__(self, root: Path, *, repeat: float = 10.0, machine: str = "a30") -> None:
        self.state_file = root / "gpus.json"
        self.uuids = [gpu.uuid for gpu in create_state(machine, self.state_file, seed=NODE).gpus]
        install(self.state_file)
        self.watch = HardwareWatch(NvmlHardware(), RESCAN, retry=0.05)
        self.held: DeviceUuids = {}
        self.held_error: StateError | None = None
        self.health = HealthService(NODE, self.watch, self._held, mig=MigPolicy(), repeat=repeat)
        self.preparer = ScriptedPreparer()
        self.paths = socket_paths(DRIVER, root / "plugins", root / "plugins_registry")
        registration = RegistrationService(DRIVER, self.paths.dra, (), _Nobody())
        self.servers = PluginServers(
            DRIVER,
            self.paths,
            (*DraService(self.preparer).handlers(), *self.health.handlers()),
            registration.handler(),
            self.health,
        )
        self.watch.start()
        assert self.watch.wait_for_first_reading(10)
        self.servers.start()

    def close(self) -> None:
        self.servers.stop(grace=0)
        self.watch.stop()
        uninstall()

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"unix:{self.paths.dra}", options=(("grpc.use_local_subchannel_pool", 1),))

    def _held(self) -> DeviceUuids:
        if self.held_error:
            raise self.held_error
        return self.held


class _Nobody:
    def accepted(self) -> None:
        raise AssertionError("nobody registers here")

    def refused(self, reason: str) -> None:
        raise AssertionError(reason)


@pytest.fixture
def lab(root: Path) -> Iterator[Lab]:
    made = Lab(root)
    yield made
    made.close()


def health_threads() -> int:
    return sum(thread.name.startswith("health") for thread in threading.enumerate())


def states(message: Any) -> dict[str, int]:
    assert all(device.device.pool_name == NODE for device in message.devices)
    return {device.device.device_name: device.health for device in message.devices}


@pytest.mark.parametrize("wire", [HEALTH_V1, HEALTH_V1ALPHA1], ids=lambda wire: wire.advertised)
def test_a_lost_gpu_is_told_within_a_rescan_and_so_is_its_recovery(lab: Lab, wire: Wire[Any, Any]) -> None:
    with lab.channel() as channel:
        stream = wire.open(channel)
        first = next(stream)
        assert states(first) == {"gpu-0": HEALTHY, "gpu-1": HEALTHY}
        assert abs(first.devices[0].last_updated_time - time.time()) < 30
        faults.lose_gpu(lab.state_file, 1)
        began = time.monotonic()
        told = next(stream)
        assert time.monotonic() - began < RESCAN + 1.0
        assert states(told) == {"gpu-0": HEALTHY, "gpu-1": UNHEALTHY}
        assert "GPU_IS_LOST" in told.devices[1].message
        assert told.devices[0].message == ""
        faults.clear_faults(lab.state_file)
        assert states(next(stream)) == {"gpu-0": HEALTHY, "gpu-1": HEALTHY}
        stream.cancel()


def test_without_the_library_nothing_is_known(lab: Lab) -> None:
    with lab.channel() as channel:
        stream = HEALTH_V1.open(channel)
        next(stream)
        faults.inject_error(lab.state_file, "nvmlSystemGetDriverVersion", 999)
        told = next(stream)
        assert states(told) == {"gpu-0": UNKNOWN, "gpu-1": UNKNOWN}
        assert told.devices[0].message
        eventually(lambda: lab.watch.state.machine is None)
        assert {each.device for each in lab.health.devices()} == {"gpu-0", "gpu-1"}
        faults.clear_faults(lab.state_file)
        assert states(eventually(lambda: _until_known(stream))) == {"gpu-0": HEALTHY, "gpu-1": HEALTHY}


def _until_known(stream: Iterator[Any]) -> Any:
    message = next(stream)
    return message if UNKNOWN not in states(message).values() else None


def test_what_a_claim_holds_is_told_though_it_was_lost_before_the_start(root: Path) -> None:
    lab = Lab(root)
    try:
        lab.held = {"gpu-5": "GPU-gone"}
        with lab.channel() as channel:
            assert states(next(HEALTH_V1.open(channel))) == {"gpu-0": HEALTHY, "gpu-1": HEALTHY, "gpu-5": UNHEALTHY}
            lab.held_error = StateError("the disk is away")
            assert states(next(HEALTH_V1.open(channel)))["gpu-5"] == UNHEALTHY, "as last known"
    finally:
        lab.close()


def test_without_a_change_it_is_said_again(root: Path) -> None:
    lab = Lab(root, repeat=0.1)
    try:
        with lab.channel() as channel:
            stream = HEALTH_V1.open(channel)
            messages = [states(next(stream)) for _ in range(4)]
            assert messages == [{"gpu-0": HEALTHY, "gpu-1": HEALTHY}] * 4
    finally:
        lab.close()


def test_two_streams_are_told_the_same_and_dead_ones_leave_nothing(lab: Lab) -> None:
    with lab.channel() as first_channel, lab.channel() as second_channel:
        first, second = HEALTH_V1.open(first_channel), HEALTH_V1ALPHA1.open(second_channel)
        assert states(next(first)) == states(next(second))
        assert lab.health.streams == 2
        faults.lose_gpu(lab.state_file, 0)
        assert states(next(first)) == states(next(second)) == {"gpu-0": UNHEALTHY, "gpu-1": HEALTHY}
        first.cancel()
        eventually(lambda: lab.health.streams == 1)
    eventually(lambda: lab.health.streams == 0)


def test_streams_beyond_the_limit_are_sent_away_and_do_not_wait(lab: Lab) -> None:
    with lab.channel() as channel:
        streams = [HEALTH_V1.open(channel) for _ in range(MAX_STREAMS)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(HEALTH_V1.open(channel))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        eventually(lambda: lab.health.streams == MAX_STREAMS - 1)
        assert states(next(HEALTH_V1.open(channel)))


def test_streams_and_prepares_take_no_threads_from_each_other(lab: Lab) -> None:
    release = threading.Event()
    with lab.channel() as channel:
        streams = [HEALTH_V1.open(channel) for _ in range(MAX_STREAMS - 1)]
        for stream in streams:
            next(stream)
        lab.preparer.before = lambda operation, claims, timeout: (release.wait(20), None)[1]
        stub = DRA_V1.prepare.stub(channel)
        calls = [
            stub.future(v1.NodePrepareResourcesRequest(claims=[v1.Claim(namespace="n", name="n", uid=str(number))]))
            for number in range(DRA_THREADS)
        ]
        try:
            eventually(lambda: len(lab.preparer.prepare_calls) == DRA_THREADS)
            assert states(next(HEALTH_V1.open(channel)))
        finally:
            release.set()
        assert all(call.result().claims for call in calls)


def test_a_stop_ends_streams_at_once_and_leaves_no_thread(root: Path) -> None:
    before = health_threads()
    lab = Lab(root)
    with lab.channel() as channel:
        streams: list[Any] = [HEALTH_V1.open(channel), HEALTH_V1ALPHA1.open(channel)]
        for stream in streams:
            next(stream)
        began = time.monotonic()
        with futures.ThreadPoolExecutor() as pool:
            ends = [pool.submit(list, stream) for stream in streams]
            lab.servers.stop(grace=15)
            assert [end.result(5) for end in ends] == [[], []]
        assert time.monotonic() - began < 3.0, "it did not wait for the grace of the calls"
    lab.watch.stop()
    uninstall()
    eventually(lambda: health_threads() == before)


def test_a_stream_that_comes_while_the_plugin_stops_does_not_hold_it_up(root: Path) -> None:
    """The kubelet dials again as soon as its stream ended, on the connection that it still has."""
    lab = Lab(root)
    with lab.channel() as channel, futures.ThreadPoolExecutor() as pool:
        next(HEALTH_V1.open(channel))
        lab.health.stop()
        assert list(HEALTH_V1.open(channel)) == []
        pool.submit(lab.servers.stop, 0).result(5)
    lab.watch.stop()
    uninstall()
