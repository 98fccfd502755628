"""The contract of the C library: what changes the state, by random lives of a machine, and faults that are played."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import capabilities, faults, load_machine, recorded_machines
from dra_driver.simulation.hardware.driver import replace_driver
from dra_driver.simulation.hardware.mps.presence import Presence
from dra_driver.simulation.hardware.state import ClientState
from tests.simulation.nvml_c import mistakes
from tests.simulation.nvml_c.twins import Answer, Arguments, Twins, given, needs_compiler

pytestmark = needs_compiler

MACHINES_WITH_MIG = tuple(
    name for name in recorded_machines() if load_machine(name).hardware.product_of(0).mig_profiles is not None
)
STEPS = 120


def placement(start: int, size: int) -> Any:
    where = pynvml.c_nvmlGpuInstancePlacement_t()
    where.start, where.size = start, size
    return where


def mig_mode(gpu: Any, wanted: int) -> Callable[[], Arguments]:
    def make() -> Arguments:
        status = ctypes.c_uint(77)
        return Arguments((gpu, wanted, ctypes.byref(status)), (status,))

    return make


class Life:
    """Random calls that change the MIG of a machine's first two GPUs, some of them wrong."""

    def __init__(self, twins: Twins, seed: int) -> None:
        self._twins = twins
        self._random = random.Random(seed)
        self._gpus = [twins.gpu(0), twins.gpu(1)]
        self._instances: list[Any] = []
        self._computes: list[Any] = []
        self._clients: list[tuple[str, int]] = []
        self.codes: set[int] = set()

    def step(self) -> None:
        name = self._random.choices(
            ("mode", "instance", "compute", "destroy", "destroy_compute", "client", "compute_mode", "reset"),
            (1, 8, 9, 4, 5, 2, 1, 1 / 4),
        )[0]
        getattr(self, f"_{name}")()

    def _call(self, name: str, make: Callable[[], Arguments]) -> Answer:
        answer = self._twins.call(name, make)
        self.codes.add(answer.code)
        return answer

    def _made(self, name: str, *arguments: Any) -> list[Any]:
        made: list[Any] = []

        def make() -> Arguments:
            made.append(ctypes.c_void_p())
            return Arguments((*arguments, ctypes.byref(made[-1])), (made[-1],))

        return made[-1:] if self._call(name, make).code == Return.SUCCESS else []

    def _mode(self) -> None:
        self._call("nvmlDeviceSetMigMode", mig_mode(self._random.choice(self._gpus), self._random.choice((1, 1, 0, 2))))

    def _instance(self) -> None:
        profiles = load_machine(self._twins.c.state.machine.name).hardware.product_of(0).mig_profiles or ()
        profile = self._random.choice(profiles)
        start = self._random.choice((*profile.placements.starts, 1))
        size = profile.placements.size if self._random.random() < 0.9 else 3
        gpu = self._random.choice(self._gpus)
        if self._random.random() < 0.5:
            self._instances += self._made("nvmlDeviceCreateGpuInstance", gpu, profile.id)
        else:
            where = ctypes.byref(placement(start, size))
            self._instances += self._made("nvmlDeviceCreateGpuInstanceWithPlacement", gpu, profile.id, where)

    def _compute(self) -> None:
        if not self._instances:
            return
        instance, profile = self._recent(self._instances), self._random.choice((0, 0, 0, 1, 2, 3, 4, 7))
        if self._random.random() < 0.6:
            self._computes += self._made("nvmlGpuInstanceCreateComputeInstance", instance, profile)
        else:
            where = ctypes.byref(placement(self._random.randrange(4), self._random.choice((1, 1, 2))))
            name = "nvmlGpuInstanceCreateComputeInstanceWithPlacement"
            self._computes += self._made(name, instance, profile, where)

    def _destroy(self) -> None:
        if self._instances:
            self._call("nvmlGpuInstanceDestroy", given(self._recent(self._instances)))

    def _destroy_compute(self) -> None:
        if self._computes:
            self._call("nvmlComputeInstanceDestroy", given(self._recent(self._computes)))

    def _recent(self, handles: list[Any]) -> Any:
        """Mostly one that is likely to be there still."""
        return self._random.choice(handles[-5:] if self._random.random() < 0.8 else handles)

    def _client(self) -> None:
        if self._clients and self._random.random() < 0.7:
            uuid, pid = self._clients.pop()
            devices = {compute.uuid for gpu in self._twins.c.state.gpus for _, compute in gpu.mig_devices()}
            if uuid in devices | {gpu.uuid for gpu in self._twins.c.state.gpus}:
                self._twins.change(lambda path: faults.remove_client(path, uuid, pid=pid))
            return
        gpu = self._twins.c.state.gpus[self._random.randrange(2)]
        uuid = self._random.choice([gpu.uuid, *(compute.uuid for _, compute in gpu.mig_devices())])
        self._clients.append((uuid, self._random.randrange(1000, 2000)))
        self._twins.change(lambda path: faults.add_client(path, uuid, pid=self._clients[-1][1]))

    def _compute_mode(self) -> None:
        gpu, mode = self._random.choice(self._gpus), self._random.randrange(6)
        self._call("nvmlDeviceSetComputeMode", given(gpu, mode))

    def _reset(self) -> None:
        index = self._random.randrange(2)
        self._twins.change(lambda path: faults.reset_gpu(path, index))


@pytest.mark.parametrize("name", MACHINES_WITH_MIG)
def test_a_life_of_mig(tmp_path: Path, name: str) -> None:
    twins = Twins(tmp_path, name)
    twins.start()
    for index in range(2):  # Ampere needs a reset
        twins.call("nvmlDeviceSetMigMode", mig_mode(twins.gpu(index), 1))
        twins.change(lambda path, index=index: faults.reset_gpu(path, index))  # type: ignore[misc]
    life = Life(twins, seed=7)
    for step in range(STEPS):
        life.step()
        if step % 30 == 0:
            twins.check_states()
    twins.check_states()
    assert {Return.SUCCESS, Return.IN_USE, Return.INSUFFICIENT_RESOURCES, Return.INVALID_ARGUMENT} <= life.codes


def test_what_nobody_understands_is_kept(tmp_path: Path) -> None:
    """A later version's state keeps its numbers, its texts and the order of its members."""
    twins = Twins(tmp_path, "t4")
    twins.start()
    gpu = twins.gpu(0)
    path = twins.c.state_file
    added = '{"later":{"big":18446744073709551615,"small":1.50e-7,"text":"\\"\\\\\\n\\u00e9€😀","none":null,"list":[[],{}]},'
    path.write_text(added + path.read_text()[1:], encoding="utf-8")
    assert twins.library.nvmlDeviceSetComputeMode(gpu, 3) == Return.SUCCESS
    written = path.read_text(encoding="utf-8")
    assert written.startswith(added.replace("\\u00e9", "é"))
    assert '"computeMode":3' in written


def test_a_state_that_is_none_is_a_machine_without_a_driver(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "t4")
    whole = twins.c.state_file.read_text()
    for content in ("", "{", "[]", whole[:-1], whole + "x", '{"a":"\\u0000"}', "[" * 1000):
        twins.c.state_file.write_text(content)
        assert twins.library.nvmlInit_v2() == Return.DRIVER_NOT_LOADED
    twins.c.state_file.unlink()
    assert twins.library.nvmlInit_v2() == Return.DRIVER_NOT_LOADED
    twins.c.state_file.write_text(whole)
    assert twins.library.nvmlInit_v2() == Return.SUCCESS


@pytest.mark.process
def test_a_state_with_mistakes_ends_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", mistakes.__name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"{mistakes.STATES}\n"), done.stderr


def serial(handle: Any) -> Callable[[], Arguments]:
    def make() -> Arguments:
        buffer = ctypes.create_string_buffer(64)
        return Arguments((handle, buffer, ctypes.c_uint(64)), (buffer,))

    return make


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
        clients = tuple(
            ClientState(pid=pid, uuid=node.state.gpus[0].uuid, holder=holder)
            for pid, holder in ((100, "one"), (101, "two"), (102, None))
        )
        node.file.update(
            lambda state, clients=clients: state.with_gpu(0, state.gpus[0].model_copy(update={"clients": clients}))  # type: ignore[misc]
        )

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


def wait(events: Any, milliseconds: int = 0) -> Callable[[], Arguments]:
    def make() -> Arguments:
        data = pynvml.c_nvmlEventData_t()
        return Arguments((events, ctypes.byref(data), milliseconds), (data,))

    return make


def test_events(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpus = [twins.gpu(0), twins.gpu(1)]
    twins.change(lambda path: faults.add_xid(path, 0, 13))
    events, other = twins.handle("nvmlEventSetCreate"), twins.handle("nvmlEventSetCreate")
    for types, gpu, into in ((0x108, gpus[0], events), (0x8, gpus[1], events), (0x100, gpus[0], other)):
        assert (
            twins.call("nvmlDeviceRegisterEvents", given(gpu, ctypes.c_ulonglong(types), into)).code == Return.SUCCESS
        )
    for wrong in ((gpus[0], ctypes.c_ulonglong(0x200), events), (gpus[0], ctypes.c_ulonglong(8), gpus[0])):
        twins.call("nvmlDeviceRegisterEvents", given(*wrong))
    assert twins.call("nvmlEventSetWait_v2", wait(events)).code == Return.TIMEOUT
    twins.change(lambda path: faults.add_xid(path, 1, 79))
    twins.change(lambda path: faults.add_xid(path, 0, 48))
    twins.call("nvmlDeviceSetMigMode", mig_mode(gpus[0], 1))
    codes = [twins.call("nvmlEventSetWait_v2", wait(events, 5)).code for _ in range(5)]
    assert codes == [Return.SUCCESS] * 3 + [Return.TIMEOUT] * 2
    assert twins.call("nvmlEventSetWait_v2", wait(other)).code == Return.SUCCESS
    assert twins.call("nvmlEventSetFree", given(other)).code == Return.SUCCESS
    assert twins.call("nvmlEventSetFree", given(other)).code == Return.INVALID_ARGUMENT
    twins.call("nvmlShutdown")
    assert twins.call("nvmlEventSetWait_v2", wait(events)).code == Return.UNINITIALIZED
    twins.start()
    assert twins.call("nvmlEventSetWait_v2", wait(events)).code == Return.INVALID_ARGUMENT


def test_a_wait_ends_with_an_event_and_holds_nobody_up(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "a30")
    twins.start()
    gpu, events = twins.gpu(1), twins.handle("nvmlEventSetCreate")
    twins.call("nvmlDeviceRegisterEvents", given(gpu, ctypes.c_ulonglong(8), events))
    data, codes = pynvml.c_nvmlEventData_t(), []
    wait = lambda: codes.append(twins.library.nvmlEventSetWait_v2(events, ctypes.byref(data), 60_000))  # noqa: E731
    waiting = threading.Thread(target=wait, name="event-wait")
    waiting.start()
    give_up = time.monotonic() + 30
    while waiting.is_alive() and time.monotonic() < give_up:
        assert twins.library.nvmlDeviceGetSerial(*serial(gpu)().passed) == Return.SUCCESS
        faults.add_xid(twins.c.state_file, 1, 79)
        waiting.join(0.1)
    assert not waiting.is_alive()
    assert (codes, data.eventType, data.eventData) == ([Return.SUCCESS], 8, 79)


def test_memory_limits(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "l40s", "615.71.09")
    twins.start()
    gpu = twins.gpu(0)
    root = tmp_path / "cgroup"
    for name in ("a/b/c", "a/d", "e"):
        (root / name).mkdir(parents=True)
    for node in (twins.python, twins.c):
        node.file.update(
            lambda state: type(state).model_validate(
                {**state.model_dump(by_alias=True), "cgroups": {"root": str(root), "standsIn": "memory"}}, strict=False
            )
        )
    unlimited, gib = 0xFFFFFFFFFFFFFFFF, 1 << 30

    def set_limits(name: str | None, soft: int, hard: int) -> int:
        limits = pynvml.c_nvmlSetMemoryLimits_v1_t()
        limits.nameSpace, limits.softLimit, limits.hardLimit = name and name.encode(), soft, hard
        code = twins.call("nvmlDeviceSetMemoryLimits_v1", given(gpu, ctypes.byref(limits))).code
        twins.check_states()
        return code

    def read(name: str) -> None:
        def make() -> Arguments:
            limits = pynvml.c_nvmlGetMemoryLimits_v1_t()
            limits.nameSpace = name.encode()
            numbers = (ctypes.c_ulonglong * 3).from_buffer(limits, 8)
            return Arguments((gpu, ctypes.byref(limits)), (numbers,))

        twins.call("nvmlDeviceGetMemoryLimits_v1", make)

    codes = [
        set_limits(f"{root}/a/b/c", 8 * gib, 16 * gib),
        set_limits(f"{root}//a/./d/", 4 * gib, unlimited),
        set_limits(f"{root}/a/b/c", 2 * gib, 16 * gib),
        set_limits(f"{root}/e", 0, 5 * gib),
        set_limits(f"{root}/e", 40 * gib, 41 * gib),
        set_limits(f"{root}/e", 6 * gib, 5 * gib),
        set_limits(f"{root}/e", 0, 100 * gib),
        set_limits(f"{root}/nothing", 0, gib),
        set_limits(f"{root}/a/../e", 0, gib),
        set_limits(str(root), 0, gib),
        set_limits("/", 0, gib),
        set_limits(None, 0, gib),
        set_limits("", 0, gib),
    ]
    assert codes[:4] == [Return.SUCCESS] * 4
    assert set(codes[4:]) == {
        Return.INVALID_ARGUMENT,
        Return.NOT_FOUND,
        Return.NOT_SUPPORTED,
        Return.INSUFFICIENT_RESOURCES,
    } | (set(codes[4:5]) - {Return.INSUFFICIENT_RESOURCES})
    os.rmdir(root / "a/b/c")
    for name in ("a", "a/b", "a/d", "e", "nothing"):
        read(f"{root}/{name}")
    set_limits(f"{root}/a/d", 0, unlimited)
    set_limits(f"{root}/e", 0, unlimited)
    read(f"{root}/a")


def test_a_tree_that_cannot_be_written_is_an_error_of_the_call(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpu = twins.gpu(0)
    twins.call("nvmlDeviceSetMigMode", mig_mode(gpu, 1))
    for node in (twins.python, twins.c):
        (node.root / capabilities.FOLDER / "gpu0").touch()  # where a folder must be
    nowhere = ctypes.byref(ctypes.c_void_p())
    assert twins.call("nvmlDeviceCreateGpuInstance", given(gpu, 9, nowhere)).code == Return.OPERATING_SYSTEM


def test_a_tree_that_is_gone_stops_no_change(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpu = twins.gpu(0)
    for node in (twins.python, twins.c):
        shutil.rmtree(node.root)
    twins.call("nvmlDeviceSetMigMode", mig_mode(gpu, 1))
    assert twins.call("nvmlDeviceCreateGpuInstance", given(gpu, 9, ctypes.byref(ctypes.c_void_p()))).code == 0
    assert not twins.c.root.exists()
