"""The contract of the C library: memory limits by cgroup."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pynvml

from dra_driver.hardware.nvml.codes import Return
from tests.simulation.nvml_c.twins import Arguments, Twins, given, needs_compiler

pytestmark = needs_compiler


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
