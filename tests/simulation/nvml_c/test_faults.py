"""The contract of the C library: faults that are played, other drivers, processes that have ended."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pynvml
import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults
from dra_driver.simulation.hardware.driver import replace_driver
from dra_driver.simulation.hardware.mps.presence import Presence
from dra_driver.simulation.hardware.state import ClientState
from tests.simulation.nvml_c.signatures import serial
from tests.simulation.nvml_c.twins import Arguments, Twins, given, needs_compiler

pytestmark = needs_compiler


def test_injected_errors(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    gpus = [twins.gpu(0), twins.gpu(1)]
    twins.change(lambda path: faults.inject_error(path, "nvmlDeviceGetSerial", Return.UNKNOWN, gpu=1, times=2))
    twins.change(lambda path: faults.inject_error(path, "nvmlDeviceGetSerial", Return.IRQ_ISSUE, times=1))
    twins.change(lambda path: faults.inject_error(path, "nvmlDeviceGetCount_v2", 4711))
    twins.change(lambda path: faults.inject_error(path, "nvmlInit_v2", Return.MEMORY, times=1))
    answers = [twins.call("nvmlDeviceGetSerial", serial(gpus[each])).code for each in (1, 0, 0, 1, 1)]
    assert answers == [Return.UNKNOWN, Return.IRQ_ISSUE, Return.SUCCESS, Return.UNKNOWN, Return.SUCCESS]
    assert [twins.call("nvmlInit_v2").code for _ in range(2)] == [Return.MEMORY, Return.SUCCESS]
    for _ in range(2):
        assert twins.call("nvmlDeviceGetCount_v2", given(None)).code == 4711
    twins.check_states()


def test_a_lost_gpu(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    gpus, events = [twins.gpu(0), twins.gpu(1)], twins.handle("nvmlEventSetCreate")
    twins.call("nvmlDeviceRegisterEvents", given(gpus[1], ctypes.c_ulonglong(0x108), events))
    uuid = twins.c.state.gpus[1].uuid.encode()
    twins.change(lambda path: faults.lose_gpu(path, 1))
    assert twins.call("nvmlDeviceGetSerial", serial(gpus[0])).code == Return.SUCCESS
    assert twins.call("nvmlDeviceGetSerial", serial(gpus[1])).code == Return.GPU_IS_LOST
    nowhere = ctypes.c_void_p()
    for name, arguments in (
        ("nvmlDeviceGetHandleByIndex_v2", (1,)),
        ("nvmlDeviceGetHandleByUUID", (uuid,)),
        ("nvmlEventSetWait_v2", (events,)),
    ):
        last = (ctypes.byref(pynvml.c_nvmlEventData_t()), 0) if "Wait" in name else (ctypes.byref(nowhere),)
        assert twins.call(name, given(*arguments, *last)).code == Return.GPU_IS_LOST


def test_missing_functions_and_privileges(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.change(lambda path: faults.hide_function(path, "nvmlDeviceGetSerial"))
    assert twins.call("nvmlDeviceGetSerial", serial(None)).code == Return.FUNCTION_NOT_FOUND
    twins.start()
    gpu = twins.gpu(0)
    assert twins.call("nvmlDeviceGetSerial", serial(gpu)).code == Return.FUNCTION_NOT_FOUND
    for node in (twins.python, twins.c):
        node.file.update(lambda state: state.model_copy(update={"privileged": False}))
    for name, further in (
        ("nvmlDeviceSetComputeMode", (3,)),
        ("nvmlDeviceSetMigMode", (1, ctypes.byref(ctypes.c_uint()))),
    ):
        assert twins.call(name, given(gpu, *further)).code == Return.NO_PERMISSION


def test_latency_holds_up_a_call(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    gpus = [twins.gpu(0), twins.gpu(1)]
    twins.change(lambda path: faults.inject_latency(path, "nvmlDeviceGetSerial", 0.25, gpu=1))
    begun = time.monotonic()
    assert twins.library.nvmlDeviceGetSerial(*serial(gpus[1])().passed) == Return.SUCCESS
    assert time.monotonic() - begun >= 0.25


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "t4")
    twins.change(faults.lose_library)
    assert twins.call("nvmlInit_v2").code == Return.LIBRARY_NOT_FOUND
    twins.change(faults.clear_faults)
    assert twins.call("nvmlShutdown").code == Return.UNINITIALIZED
    assert twins.call("nvmlInit_v2").code == Return.SUCCESS


@pytest.mark.parametrize(
    ("libraries", "module", "code"),
    [
        ("590.44.01", "590.44.01", Return.LIB_RM_VERSION_MISMATCH),
        ("590.44.01", "580.105.08", Return.SUCCESS),
        (None, "580.105.08", Return.SUCCESS),
        ("580.105.08", None, Return.DRIVER_NOT_LOADED),
    ],
)
def test_a_driver_that_is_replaced(tmp_path: Path, libraries: str | None, module: str | None, code: Return) -> None:
    twins = Twins(tmp_path, "t4")
    twins.start()
    gpu = twins.gpu(0)
    twins.change(lambda path: replace_driver(path, libraries=libraries, module=module))
    assert twins.call("nvmlDeviceGetSerial", serial(gpu)).code == code
    assert twins.call("nvmlInit_v2").code == code


def test_processes_that_have_ended_hold_nothing(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpu = twins.gpu(0)
    there = {node.state_file: Presence(node.state_file) for node in (twins.python, twins.c)}
    for path, presence in there.items():
        presence.holder = "one"
        presence._path = presence._path.with_name("one")
        presence.begin()
        node = twins.c if path == twins.c.state_file else twins.python
        holders = ((100, "one"), (101, "two"), (102, None))
        uuid = node.state.gpus[0].uuid
        node.set_clients(*(ClientState(pid=pid, uuid=uuid, holder=holder) for pid, holder in holders))

    def processes() -> Arguments:
        count, infos = ctypes.c_uint(4), (pynvml.c_nvmlProcessInfo_v3_t * 4)()
        return Arguments((gpu, ctypes.byref(count), infos), (count, infos))

    name = "nvmlDeviceGetComputeRunningProcesses_v3"
    assert twins.call(name, processes).written[0] == bytes(ctypes.c_uint(2))
    for presence in there.values():
        presence.end()
    assert twins.call(name, processes).written[0] == bytes(ctypes.c_uint(1))
    assert twins.call("nvmlDeviceSetComputeMode", given(gpu, 2)).code == Return.SUCCESS
    assert [client.pid for client in twins.c.state.gpus[0].clients] == [102]
    twins.check_states()
