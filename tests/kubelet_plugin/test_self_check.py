"""The health check finds what is wrong with the sockets, through the sockets."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet.services import DRA_V1
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import Reading
from kubelet_plugin.connection import KubeletConnection
from kubelet_plugin.hardware_watch import HardwareWatch
from kubelet_plugin.self_check import SocketCheck, hardware_check, registration_check
from kubelet_plugin.servers import DRA_THREADS
from tests.kubelet_plugin.fakes import DRIVER, InProcessPlugin, ScriptedPreparer, eventually


def test_a_healthy_plugin_and_each_socket_missing(root: Path) -> None:
    preparer = ScriptedPreparer()
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    check = SocketCheck(DRIVER, plugin.paths, timeout=1)
    try:
        assert check() is None
        assert preparer.prepare_calls == []
        assert plugin.observer.calls == []
        assert "is served by driver 'gpu.nvidia.com'" in str(SocketCheck("other", plugin.paths, timeout=1)())
        plugin.paths.dra.unlink()
        assert "an empty NodePrepareResources on" in str(check())
        plugin.paths.registration.unlink()
        assert "GetInfo on" in str(check())
    finally:
        plugin.stop(grace=0)


def test_exhausted_threads_are_found(root: Path) -> None:
    release = threading.Event()
    preparer = ScriptedPreparer()
    preparer.before = lambda operation, claims, timeout: (release.wait(10), None)[1]
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    try:
        with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel:
            stub = DRA_V1.prepare.stub(channel)
            claims = [v1.Claim(namespace="ns", name="n", uid=str(number)) for number in range(DRA_THREADS)]
            calls = [stub.future(v1.NodePrepareResourcesRequest(claims=[claim]), timeout=10) for claim in claims]
            eventually(lambda: len(preparer.prepare_calls) == DRA_THREADS)
            assert "DEADLINE_EXCEEDED" in str(SocketCheck(DRIVER, plugin.paths, timeout=0.1)())
            release.set()
            assert all(call.result().claims for call in calls)
    finally:
        plugin.stop(grace=0)


def test_calls_that_wait_do_not_make_the_plugin_look_dead(root: Path) -> None:
    release = threading.Event()
    preparer = ScriptedPreparer()
    preparer.before = lambda operation, claims, timeout: (release.wait(10), None)[1]
    plugin = InProcessPlugin(root, preparer)
    plugin.start()
    try:
        with grpc.insecure_channel(f"unix:{plugin.paths.dra}") as channel:
            stub = DRA_V1.prepare.stub(channel)
            claims = [v1.Claim(namespace="ns", name="n", uid=str(number)) for number in range(16)]
            calls = [stub.future(v1.NodePrepareResourcesRequest(claims=[claim]), timeout=10) for claim in claims]
            eventually(lambda: len(preparer.prepare_calls) == len(calls))
            assert SocketCheck(DRIVER, plugin.paths, timeout=2)() is None
            release.set()
            assert all(call.result().claims for call in calls)
    finally:
        release.set()
        plugin.stop(grace=0)


def test_readiness_is_the_kubelets_word() -> None:
    connection = KubeletConnection(Path("/none"))
    assert registration_check(connection) == "the kubelet has not registered us"
    connection.refused("no common version")
    assert registration_check(connection) == "the kubelet refused this plugin: no common version"
    connection.accepted()
    assert registration_check(connection) is None


class HangingHardware:
    def __init__(self) -> None:
        self.release = threading.Event()

    def start(self) -> None:
        self.release.wait(10)

    def stop(self) -> None:
        """Nothing to unload."""

    def read(self) -> Reading:
        return Reading(Machine("580", 13000))


def test_a_hanging_reading_makes_unready_after_a_minute() -> None:
    now = [0.0]
    hardware = HangingHardware()
    watch = HardwareWatch(hardware, 0, clock=lambda: now[0])
    watch.start()
    eventually(lambda: watch._reading_since is not None)
    assert hardware_check(watch) is None
    now[0] = 61.0
    assert hardware_check(watch) == "a hardware reading hangs since 61 s"
    hardware.release.set()
    eventually(lambda: hardware_check(watch) is None)
    watch.stop()
