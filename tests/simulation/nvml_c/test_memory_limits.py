"""The contract of the C library: limits of a GPU's memory by cgroup, with driver 615."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from dra_driver.simulation.hardware.state import ClientState
from tests.simulation.nvml_c.signatures import mig_mode
from tests.simulation.nvml_c.twins import Arguments, Twins, given, needs_compiler

pytestmark = needs_compiler

GIB = 1 << 30
UNLIMITED = 0xFFFFFFFFFFFFFFFF


class Limited:
    """Twins with cgroups of their own, and GPU 0 of them, which has 44.99 GiB."""

    def __init__(self, twins: Twins, root: Path, stands_in: str = "memory") -> None:
        self.twins = twins
        self.root = root
        twins.change(lambda path: use_hierarchy(path, CgroupHierarchy(root, stands_in)))
        twins.start()
        self.gpu = twins.gpu(0)

    def set(self, cgroup: str | None, soft: int, hard: int) -> int:
        limits = pynvml.c_nvmlSetMemoryLimits_v1_t()
        limits.nameSpace, limits.softLimit, limits.hardLimit = cgroup and cgroup.encode(), soft, hard
        code = self.twins.call("nvmlDeviceSetMemoryLimits_v1", given(self.gpu, ctypes.byref(limits))).code
        self.twins.check_states()
        return code

    def get(self, cgroup: Path) -> int:
        return self.twins.call("nvmlDeviceGetMemoryLimits_v1", reading(self.gpu, cgroup)).code

    def use(self, cgroup: Path, allocated: int) -> None:
        """A process in the cgroup has memory of the GPU."""
        for node in (self.twins.python, self.twins.c):
            uuid = node.state.gpus[0].uuid
            node.set_clients(ClientState(pid=1, uuid=uuid, allocated=allocated, cgroup=str(cgroup)))


def reading(gpu: Any, cgroup: Path) -> Callable[[], Arguments]:
    def make() -> Arguments:
        limits = pynvml.c_nvmlGetMemoryLimits_v1_t()
        limits.nameSpace = bytes(cgroup)
        numbers = (ctypes.c_ulonglong * 3).from_buffer(limits, pynvml.c_nvmlGetMemoryLimits_v1_t.softLimit.offset)
        return Arguments((gpu, ctypes.byref(limits)), (numbers,))

    return make


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / "cgroup" / name).mkdir(parents=True)
    return Limited(Twins(tmp_path, "l40s", "615.71.09"), tmp_path / "cgroup")


def test_limits_and_what_they_reserve_above(limited: Limited) -> None:
    root = limited.root
    for cgroup, soft, hard in (
        (f"{root}/a/b/c", 8 * GIB, 16 * GIB),
        (f"{root}//a/./d/", 4 * GIB, UNLIMITED),
        (f"{root}/a/b/c", 2 * GIB, 16 * GIB),
        (f"{root}/e", 0, 5 * GIB),
    ):
        assert limited.set(cgroup, soft, hard) == Return.SUCCESS
    (root / "a/b/c").rmdir()  # what it has reserved above stays
    for name in ("a", "a/b", "a/d", "e"):
        assert limited.get(root / name) == Return.SUCCESS
    for name in ("a/d", "e"):
        assert limited.set(f"{root}/{name}", 0, UNLIMITED) == Return.SUCCESS
    assert [(Path(each.cgroup).name, each.soft) for each in limited.twins.c.state.gpus[0].memory_limits] == [
        ("b", 2 * GIB),
        ("a", 2 * GIB),
    ]


def test_refusals(limited: Limited) -> None:
    root, twins = limited.root, limited.twins
    assert limited.set(f"{root}/a", 20 * GIB, 20 * GIB) == Return.SUCCESS
    limited.use(root / "e", 3 * GIB)
    for cgroup, soft, hard, code in (
        (f"{root}/e", 0, 2 * GIB, Return.IN_USE),
        (f"{root}/e", 30 * GIB, 30 * GIB, Return.INSUFFICIENT_RESOURCES),
        (f"{root}/e", 6 * GIB, 5 * GIB, Return.INVALID_ARGUMENT),
        (f"{root}/e", 0, 100 * GIB, Return.INVALID_ARGUMENT),
        (f"{root}/nothing", 0, GIB, Return.NOT_FOUND),
        (f"{root}/a/../e", 0, GIB, Return.NOT_FOUND),
        (f"{root}-beside", 0, GIB, Return.NOT_FOUND),
        ("/", 0, GIB, Return.NOT_FOUND),
        (str(root), 0, GIB, Return.NOT_SUPPORTED),
        (None, 0, GIB, Return.INVALID_ARGUMENT),
        ("", 0, GIB, Return.INVALID_ARGUMENT),
    ):
        assert limited.set(cgroup, soft, hard) == code, cgroup
    assert limited.get(root / "nothing") == Return.NOT_FOUND
    twins.change(lambda path: use_hierarchy(path, CgroupHierarchy(root)))  # it is no cgroup v2
    assert limited.get(root / "e") == Return.NOT_SUPPORTED


def test_mig_has_no_limits(tmp_path: Path) -> None:
    (tmp_path / "cgroup/e").mkdir(parents=True)
    limited = Limited(Twins(tmp_path, "h100-nvl", "615.71.09"), tmp_path / "cgroup")
    limited.twins.call("nvmlDeviceSetMigMode", mig_mode(limited.gpu, 1))
    assert limited.set(f"{limited.root}/e", 0, GIB) == Return.NOT_SUPPORTED
    assert limited.get(limited.root / "e") == Return.NOT_SUPPORTED


def own_controllers() -> list[tuple[str, Path]]:
    """Hierarchies in which this process is in another cgroup than the root: their first controller, "" for v2."""
    text = Path("/proc/self/cgroup").read_text()
    found = []
    for line in text.splitlines():
        controller = line.split(":")[1].split(",")[0]
        try:
            found.append((controller, CgroupHierarchy(Path("/r"), controller).of_process(text).relative_to("/r")))
        except HardwareError:
            continue
    return found


def test_a_process_sees_the_limit_of_its_own_cgroup(tmp_path: Path) -> None:
    own = own_controllers()
    if not own:
        pytest.skip("this process is in the root cgroup of every hierarchy")
    controller, inside = own[0]
    root = tmp_path / "cgroup"
    (root / inside).mkdir(parents=True)
    (root / "cgroup.controllers").touch()
    limited = Limited(Twins(tmp_path, "l40s", "615.71.09"), root, controller)
    assert limited.set(f"{root}/{inside}", 0, 5 * GIB) == Return.SUCCESS
    limited.use(root / inside, GIB)

    def memory() -> Arguments:
        info = pynvml.c_nvmlMemory_v2_t()
        info.version = pynvml.nvmlMemory_v2
        return Arguments((limited.gpu, ctypes.byref(info)), (info,))

    info = pynvml.c_nvmlMemory_v2_t.from_buffer_copy(
        limited.twins.call("nvmlDeviceGetMemoryInfo_v2", memory).written[0]
    )
    assert (info.total, info.used, info.free) == (5 * GIB, GIB, 4 * GIB)
