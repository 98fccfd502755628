"""Events of GPUs: what the simulated library gives to pynvml, and GpuEvents on it."""

from __future__ import annotations

import threading
import time

import pynvml
import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import GpuEvent, GpuEvents, MigControl, NvmlCallError
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults
from tests.simulated_node import Node, NodeMaker

MIG, XID = pynvml.nvmlEventMigConfigChange, pynvml.nvmlEventTypeXidCriticalError


def code_of(call: object) -> int:
    assert callable(call)
    with pytest.raises(pynvml.NVMLError) as caught:
        call()
    return int(caught.value.value)


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    return make_node("h100-sxm5-80gb")


def uuids(node: Node) -> list[str]:
    return [gpu.uuid for gpu in node.file.read().gpus]


def test_what_is_supported(make_node: NodeMaker) -> None:
    make_node("t4")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetSupportedEventTypes(handle) == XID
    events = pynvml.nvmlEventSetCreate()
    assert code_of(lambda: pynvml.nvmlDeviceRegisterEvents(handle, MIG, events)) == Return.NOT_SUPPORTED
    pynvml.nvmlDeviceRegisterEvents(handle, XID, events)
    assert code_of(lambda: pynvml.nvmlEventSetWait_v2(events, 0)) == Return.TIMEOUT
    pynvml.nvmlEventSetFree(events)
    for call in (
        lambda: pynvml.nvmlEventSetWait_v2(events, 0),
        lambda: pynvml.nvmlEventSetFree(events),
        lambda: pynvml.nvmlDeviceRegisterEvents(handle, XID, events),
        lambda: pynvml.nvmlEventSetWait_v2(handle, 0),
        lambda: pynvml.nvmlDeviceRegisterEvents(handle, XID, handle),
    ):
        assert code_of(call) == Return.INVALID_ARGUMENT


def test_each_change_since_the_registration_comes_once_to_each_set(node: Node) -> None:
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1)]
    faults.add_xid(node.state_file, 0, 31)  # before anybody asked
    both, only_mig = pynvml.nvmlEventSetCreate(), pynvml.nvmlEventSetCreate()
    for handle in handles:
        pynvml.nvmlDeviceRegisterEvents(handle, XID, both)
        pynvml.nvmlDeviceRegisterEvents(handle, MIG, both)
        pynvml.nvmlDeviceRegisterEvents(handle, MIG, only_mig)
    faults.add_xid(node.state_file, 1, 79)
    faults.add_xid(node.state_file, 1, 94)
    pynvml.nvmlDeviceSetMigMode(handles[0], 1)
    found = []
    for _ in range(3):
        data = pynvml.nvmlEventSetWait_v2(both, 0)
        found.append((pynvml.nvmlDeviceGetUUID(data.device), data.eventType, data.eventData))
    first, second = uuids(node)[:2]
    assert sorted(found) == sorted([(first, MIG, 0), (second, XID, 79), (second, XID, 94)])
    assert code_of(lambda: pynvml.nvmlEventSetWait_v2(both, 0)) == Return.TIMEOUT
    assert pynvml.nvmlEventSetWait_v2(only_mig, 0).eventType == MIG
    assert code_of(lambda: pynvml.nvmlEventSetWait_v2(only_mig, 0)) == Return.TIMEOUT


def test_the_shutdown_takes_event_sets_away(node: Node) -> None:
    events = pynvml.nvmlEventSetCreate()
    node.hardware.stop()
    node.hardware.start()
    assert code_of(lambda: pynvml.nvmlEventSetWait_v2(events, 0)) == Return.INVALID_ARGUMENT


def test_a_wait_ends_with_a_change_by_another_thread(node: Node) -> None:
    events = GpuEvents()
    assert events.open() == 8
    uuid = uuids(node)[2]
    thread = threading.Timer(0.05, lambda: MigControl().set_mode(uuid, True))
    thread.start()
    begun = time.monotonic()
    assert events.wait(10) == GpuEvent(uuid)
    assert time.monotonic() - begun < 5
    thread.join()
    assert events.wait(0) is None
    control = MigControl()
    identifier = control.create_gpu_instance(uuid, 19, MigPlacement(0, 1))
    control.create_compute_instance(uuid, identifier, 1)
    assert [events.wait(0), events.wait(0), events.wait(0)] == [GpuEvent(uuid), GpuEvent(uuid), None]
    faults.add_xid(node.state_file, 4, 48)
    assert events.wait(0) == GpuEvent(uuids(node)[4], 48)
    events.close()


def test_gpus_without_events_are_left_out(node: Node) -> None:
    faults.inject_error(node.state_file, "nvmlDeviceGetSupportedEventTypes", Return.NOT_SUPPORTED, gpu=0)
    faults.inject_error(node.state_file, "nvmlDeviceRegisterEvents", Return.UNKNOWN, gpu=1)
    faults.lose_gpu(node.state_file, 2)
    events = GpuEvents()
    assert events.open() == 5
    faults.lose_gpu(node.state_file, 3)
    with pytest.raises(NvmlCallError, match="GPU_IS_LOST"):
        events.wait(1)
    events.close()


def test_it_holds_nvml_for_itself_only_while_it_is_open(node: Node) -> None:
    events = GpuEvents()
    events.open()
    node.hardware.stop()
    assert pynvml.nvmlDeviceGetCount() == 8
    events.close()
    with pytest.raises(HardwareError, match="UNINITIALIZED"):
        node.hardware.read()
    node.hardware.start()
    events.close()
    assert len(node.hardware.read_machine().gpus) == 8


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceGetCount_v2"])
def test_an_opening_that_fails_holds_nothing(node: Node, function: str) -> None:
    faults.inject_error(node.state_file, function, Return.UNKNOWN)
    with pytest.raises(NvmlCallError):
        GpuEvents().open()
    node.hardware.stop()
    with pytest.raises(HardwareError, match="UNINITIALIZED"):
        node.hardware.read()
