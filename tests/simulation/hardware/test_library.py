"""The simulated library under pynvml's own wrappers: what a program written for real NVML sees."""

from __future__ import annotations

import ctypes
import inspect
import os
import threading
from ctypes import byref, c_uint
from pathlib import Path

import pynvml
import pytest

from dra_driver.hardware.nvml import binding
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import SimulatedLibrary, faults, load_machine, recorded_machines, time_slice
from dra_driver.simulation.hardware.description import MigDescription, MigInstanceDescription
from dra_driver.simulation.hardware.library import FUNCTIONS
from tests.simulated_node import Node, NodeMaker


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    return make_node("a100-sxm4-40gb")


@pytest.fixture
def mig_node(make_node: NodeMaker) -> Node:
    """GPU 0 is in MIG mode with a 3g.20gb and a 1g.5gb."""
    description = load_machine("a100-sxm4-40gb")
    instances = (MigInstanceDescription(profile=9, start=4), MigInstanceDescription(profile=19, start=0))
    first = description.hardware.gpus[0].model_copy(update={"mig": MigDescription(enabled=True, instances=instances)})
    hardware = description.hardware.model_copy(update={"gpus": (first, *description.hardware.gpus[1:])})
    return make_node(description.model_copy(update={"hardware": hardware}))


def code_of(call: object) -> int:
    assert callable(call)
    with pytest.raises(pynvml.NVMLError) as caught:
        call()
    return int(caught.value.value)


def test_codes_are_those_of_nvml() -> None:
    ours = {f"NVML_ERROR_{code.name}": int(code) for code in Return if code is not Return.SUCCESS}
    theirs = {name: value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    assert ours == {name: value for name, value in theirs.items() if name in ours}
    assert set(theirs) - set(ours) == set(), "pynvml knows codes that we do not"


def test_every_simulated_function_is_one_that_pynvml_asks_for() -> None:
    """But for what NVML does not publish."""
    source = inspect.getsource(pynvml)
    assert {name for name in FUNCTIONS if f'"{name}"' not in source} == set(time_slice.FUNCTIONS)


@pytest.mark.parametrize("name", recorded_machines())
def test_what_a_monitoring_tool_reads(make_node: NodeMaker, name: str) -> None:
    make_node(name)
    hardware = load_machine(name).hardware
    assert pynvml.nvmlSystemGetDriverVersion() == hardware.driver_version
    assert pynvml.nvmlSystemGetNVMLVersion() == f"13.{hardware.driver_version}"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13000
    assert pynvml.nvmlDeviceGetCount() == len(hardware.gpus)
    serials = set()
    for index, described in enumerate(hardware.gpus):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        product = hardware.product_of(index)
        limit = product.power_limit_milliwatts
        assert limit is not None
        pci = pynvml.nvmlDeviceGetPciInfo(handle)
        assert pci.busId.lower() == f"0000{described.pci_bus_id}"
        assert pci.pciDeviceId == int(product.pci_device_id or "", 16)
        assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByPciBusId(pci.busId)) == pynvml.nvmlDeviceGetUUID(
            handle
        )
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(pynvml.nvmlDeviceGetUUID(handle))) == index
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        assert memory.total == memory.free + memory.reserved + memory.used == product.memory_bytes
        plain = pynvml.nvmlDeviceGetMemoryInfo(handle)
        assert plain.total == plain.free + plain.used == product.memory_bytes
        assert 0 < pynvml.nvmlDeviceGetPowerUsage(handle) < pynvml.nvmlDeviceGetPowerManagementLimit(handle) == limit
        assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == limit
        celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        assert 20 < celsius < 90
        assert pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU) == celsius
        assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 0
        clocks = product.max_clocks
        assert clocks is not None
        assert pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM) == clocks.sm_mhz
        assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) == clocks.memory_mhz
        assert 0 < pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_GRAPHICS) < clocks.sm_mhz
        assert code_of(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_VIDEO)) == Return.NOT_SUPPORTED  # noqa: B023
        assert pynvml.nvmlDeviceGetPerformanceState(handle) == pynvml.NVML_PSTATE_0
        bar1 = pynvml.nvmlDeviceGetBAR1MemoryInfo(handle)
        assert bar1.bar1Total == bar1.bar1Free >= (product.memory_bytes or 0)
        assert pynvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0) == 0
        assert code_of(lambda: pynvml.nvmlDeviceGetTotalEccErrors(handle, 2, 0)) == Return.INVALID_ARGUMENT  # noqa: B023
        assert pynvml.nvmlDeviceGetPersistenceMode(handle) == pynvml.NVML_FEATURE_ENABLED
        assert pynvml.nvmlDeviceGetEccMode(handle) == [1, 1]
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
        assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle) == []
        assert pynvml.nvmlDeviceGetVirtualizationMode(handle) == pynvml.NVML_GPU_VIRTUALIZATION_MODE_NONE
        assert not pynvml.nvmlDeviceIsMigDeviceHandle(handle).value
        serials.add(pynvml.nvmlDeviceGetSerial(handle))
    assert len(serials) == len(hardware.gpus)


def test_the_name_of_a_process(node: Node) -> None:
    assert (
        pynvml.nvmlSystemGetProcessName(os.getpid()) == Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    )
    assert code_of(lambda: pynvml.nvmlSystemGetProcessName(2**31 - 1)) == Return.NOT_FOUND


def test_profile_information_in_both_versions(node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    old = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE, version=1)
    new = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE)
    assert (old.id, old.memorySizeMB, old.multiprocessorCount) == (new.id, new.memorySizeMB, new.multiprocessorCount)
    assert new.name == "MIG 7g.40gb"
    lacking = pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX
    assert code_of(lambda: pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, lacking)) == Return.NOT_SUPPORTED
    assert code_of(lambda: pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, 18)) == Return.INVALID_ARGUMENT


def test_placements_need_room(node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    count = c_uint(0)
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, 19, None, byref(count))
    assert count.value == 7
    small = (pynvml.c_nvmlGpuInstancePlacement_t * 3)()
    count.value = 3
    function = pynvml.nvmlDeviceGetGpuInstancePossiblePlacements
    assert code_of(lambda: function(handle, 19, small, byref(count))) == Return.INSUFFICIENT_SIZE
    assert count.value == 7
    assert code_of(lambda: function(handle, 4, None, byref(count))) == Return.INVALID_ARGUMENT


def test_mig_queries_where_there_is_no_mig(make_node: NodeMaker) -> None:
    make_node("t4")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert code_of(lambda: pynvml.nvmlDeviceGetMigMode(handle)) == Return.NOT_SUPPORTED
    assert code_of(lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)) == Return.NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 0


def test_mig_off_has_no_mig_devices(node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 7
    assert code_of(lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)) == Return.NOT_FOUND
    assert code_of(lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 7)) == Return.INVALID_ARGUMENT
    buffer = (pynvml.c_nvmlGpuInstance_t * 7)()
    assert (
        code_of(lambda: pynvml.nvmlDeviceGetGpuInstances(handle, 19, buffer, byref(c_uint()))) == Return.NOT_SUPPORTED
    )


def test_a_mig_device_from_every_side(mig_node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)
    uuid = pynvml.nvmlDeviceGetUUID(mig)
    assert pynvml.nvmlDeviceGetName(mig) == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    assert pynvml.nvmlDeviceIsMigDeviceHandle(mig).value == 1
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)) == 0
    assert pynvml.nvmlDeviceGetMemoryInfo(mig).total == 20096 << 20
    attributes = pynvml.nvmlDeviceGetAttributes(mig)
    assert (attributes.multiprocessorCount, attributes.gpuInstanceSliceCount, attributes.memorySizeMB) == (42, 3, 20096)
    gpu_instance = pynvml.nvmlDeviceGetGpuInstanceById(handle, pynvml.nvmlDeviceGetGpuInstanceId(mig))
    info = pynvml.nvmlGpuInstanceGetInfo(gpu_instance)
    assert (info.profileId, info.placement.start, info.placement.size) == (9, 4, 4)
    assert pynvml.nvmlDeviceGetIndex(info.device) == 0
    buffer, count = (pynvml.c_nvmlComputeInstance_t * 1)(), c_uint()
    three_slices = 2  # the compute instance profile that fills a 3g
    pynvml.nvmlGpuInstanceGetComputeInstances(gpu_instance, three_slices, buffer, byref(count))
    assert count.value == 1
    compute = pynvml.nvmlComputeInstanceGetInfo(buffer[0])
    assert pynvml.nvmlDeviceGetUUID(compute.device) == uuid
    assert compute.id == pynvml.nvmlDeviceGetComputeInstanceId(mig) == 0
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == uuid
    assert code_of(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle)) == Return.NOT_SUPPORTED
    assert code_of(lambda: pynvml.nvmlDeviceGetMinorNumber(mig)) == Return.INVALID_ARGUMENT
    assert code_of(lambda: pynvml.nvmlDeviceGetGpuInstanceById(handle, 99)) == Return.NOT_FOUND


def test_the_instance_that_is_gone_is_not_found(mig_node: Node) -> None:
    mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(pynvml.nvmlDeviceGetHandleByIndex(0), 1)
    mig_node.file.update(lambda state: state.with_gpu(0, state.gpus[0].model_copy(update={"instances": ()})))
    assert code_of(lambda: pynvml.nvmlDeviceGetUUID(mig)) == Return.NOT_FOUND


@pytest.mark.parametrize(
    "call",
    [
        lambda handle: pynvml.nvmlDeviceSetPersistenceMode(handle, 1),
        pynvml.nvmlDeviceGetFanSpeed,
    ],
)
def test_what_is_not_simulated_is_not_there(node: Node, call: object) -> None:
    assert callable(call)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert code_of(lambda: call(handle)) == Return.FUNCTION_NOT_FOUND


def test_handles_are_checked(node: Node) -> None:
    null = pynvml.c_nvmlDevice_t()
    assert code_of(lambda: pynvml.nvmlDeviceGetName(null)) == Return.INVALID_ARGUMENT
    assert code_of(lambda: pynvml.nvmlDeviceGetName(None)) == Return.INVALID_ARGUMENT
    forged = ctypes.cast(ctypes.c_void_p(0x1234), pynvml.c_nvmlDevice_t)
    assert code_of(lambda: pynvml.nvmlDeviceGetName(forged)) == Return.INVALID_ARGUMENT
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert code_of(lambda: pynvml.nvmlGpuInstanceGetInfo(handle)) == Return.INVALID_ARGUMENT
    assert code_of(lambda: pynvml.nvmlDeviceGetHandleByIndex(8)) == Return.INVALID_ARGUMENT
    assert code_of(lambda: pynvml.nvmlDeviceGetHandleByUUID("GPU-unknown")) == Return.NOT_FOUND
    assert code_of(lambda: pynvml.nvmlDeviceGetHandleByPciBusId("0000:ff:00.0")) == Return.NOT_FOUND
    assert code_of(lambda: pynvml.nvmlDeviceGetHandleByPciBusId("nonsense")) == Return.INVALID_ARGUMENT


def test_buffers_results_and_versions_are_checked(node: Node) -> None:
    library = pynvml.nvmlLib
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    name = b"NVIDIA A100-SXM4-40GB"
    exact = ctypes.create_string_buffer(len(name) + 1)
    assert library.nvmlDeviceGetName(handle, exact, len(name)) == Return.INSUFFICIENT_SIZE
    assert library.nvmlDeviceGetName(handle, exact, len(name) + 1) == Return.SUCCESS
    assert exact.value == name
    short = ctypes.create_string_buffer(4)  # a lie about the buffer's length would overwrite memory in C
    assert library.nvmlDeviceGetName(handle, short, 96) == Return.INSUFFICIENT_SIZE
    assert library.nvmlDeviceGetName(handle, None, 96) == Return.INVALID_ARGUMENT
    assert library.nvmlDeviceGetMinorNumber(handle, None) == Return.INVALID_ARGUMENT
    memory = pynvml.c_nvmlMemory_v2_t()
    assert library.nvmlDeviceGetMemoryInfo_v2(handle, byref(memory)) == Return.ARGUMENT_VERSION_MISMATCH
    assert memory.total == 0


def test_nothing_works_before_initialisation_but_error_texts(make_node: NodeMaker) -> None:
    make_node("t4", start=False)
    assert code_of(pynvml.nvmlDeviceGetCount) == Return.UNINITIALIZED
    assert code_of(pynvml.nvmlShutdown) == Return.UNINITIALIZED
    assert str(pynvml.NVMLError(Return.INSUFFICIENT_RESOURCES)) == "Insufficient Resources"
    assert pynvml.nvmlErrorString(12345) == "Unknown Error"


def test_initialisation_is_counted(node: Node) -> None:
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetCount() == 8


def test_no_gpus_is_an_error_unless_it_is_allowed(make_node: NodeMaker) -> None:
    description = load_machine("t4")
    empty = description.model_copy(update={"hardware": description.hardware.model_copy(update={"gpus": ()})})
    make_node(empty, start=False)
    assert code_of(pynvml.nvmlInit) == Return.NOT_FOUND
    pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS)
    assert pynvml.nvmlDeviceGetCount() == 0
    pynvml.nvmlShutdown()


def test_compute_mode(node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(1)
    assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_DEFAULT
    pynvml.nvmlDeviceSetComputeMode(handle, pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)
    assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    assert pynvml.nvmlDeviceGetComputeMode(pynvml.nvmlDeviceGetHandleByIndex(0)) == pynvml.NVML_COMPUTEMODE_DEFAULT
    assert code_of(lambda: pynvml.nvmlDeviceSetComputeMode(handle, 1)) == Return.NOT_SUPPORTED
    assert code_of(lambda: pynvml.nvmlDeviceSetComputeMode(handle, 9)) == Return.INVALID_ARGUMENT
    node.file.update(lambda state: state.model_copy(update={"privileged": False}))
    assert code_of(lambda: pynvml.nvmlDeviceSetComputeMode(handle, 0)) == Return.NO_PERMISSION
    assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS


def test_an_error_comes_as_often_as_it_was_asked_for(node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(2)
    faults.inject_error(node.state_file, "nvmlDeviceGetPowerUsage", Return.TIMEOUT, gpu=2, times=2)
    assert pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByIndex(0)) > 0
    assert code_of(lambda: pynvml.nvmlDeviceGetPowerUsage(handle)) == Return.TIMEOUT
    assert code_of(lambda: pynvml.nvmlDeviceGetPowerUsage(handle)) == Return.TIMEOUT
    assert pynvml.nvmlDeviceGetPowerUsage(handle) > 0
    assert node.file.read().faults.calls == ()


def test_a_lost_gpu_says_so_on_every_call(node: Node) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(5)
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    faults.lose_gpu(node.state_file, 5)
    assert pynvml.nvmlDeviceGetCount() == 8
    for call in (
        lambda: pynvml.nvmlDeviceGetUUID(handle),
        lambda: pynvml.nvmlDeviceGetTemperature(handle, 0),
        lambda: pynvml.nvmlDeviceGetHandleByIndex(5),
        lambda: pynvml.nvmlDeviceGetHandleByUUID(uuid),
    ):
        assert code_of(call) == Return.GPU_IS_LOST


def test_a_slow_call_holds_up_only_itself(node: Node) -> None:
    """The latency is played on the caller's thread; other calls go on meanwhile."""
    waiting, go_on, waits = threading.Event(), threading.Event(), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        waiting.set()
        go_on.wait(5)

    faults.inject_latency(node.state_file, "nvmlDeviceGetSerial", 7.5)
    binding.replace(SimulatedLibrary(node.file, sleep=sleep))
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(pynvml.nvmlDeviceGetSerial(handle)), name="slow-call")
    thread.start()
    assert waiting.wait(5)
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA A100-SXM4-40GB"
    assert results == []
    go_on.set()
    thread.join(5)
    assert len(results) == 1
    assert waits == [7.5]


def test_latency_for_every_function_but_one(node: Node) -> None:
    waits: list[float] = []
    faults.inject_latency(node.state_file, "*", 0.5)
    faults.inject_latency(node.state_file, "nvmlDeviceGetCount_v2", 0.0)
    binding.replace(SimulatedLibrary(node.file, sleep=waits.append))
    pynvml.nvmlInit()
    pynvml.nvmlDeviceGetCount()
    pynvml.nvmlSystemGetDriverVersion()
    assert waits == [0.5, 0.5]


def test_a_function_that_is_slow_on_one_gpu(node: Node) -> None:
    waits: list[float] = []
    faults.inject_latency(node.state_file, "nvmlDeviceGetSerial", 20.0, gpu=3)
    faults.inject_latency(node.state_file, "nvmlDeviceGetSerial", 30.0, gpu=3)
    faults.inject_latency(node.state_file, "*", 0.5)
    binding.replace(SimulatedLibrary(node.file, sleep=waits.append))
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in (2, 3)]
    waits.clear()
    for handle in handles:
        pynvml.nvmlDeviceGetSerial(handle)
        pynvml.nvmlDeviceGetName(handle)
    assert waits == [0.5, 0.5, 30.0, 0.5]
    faults.clear_faults(node.state_file)
    pynvml.nvmlDeviceGetSerial(handles[1])
    assert waits == [0.5, 0.5, 30.0, 0.5]
