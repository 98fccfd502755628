"""What only the C library has: functions that programs in Go call when they list GPUs."""

from __future__ import annotations

import ctypes
import uuid
from pathlib import Path
from typing import Any

import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults
from tests.simulation.nvml_c.test_reading import with_mig
from tests.simulation.nvml_c.twins import Twins, needs_compiler

pytestmark = needs_compiler

TEXT, BYTES = 1, 2  # nvmlUUIDType_t


class UuidValue(ctypes.Union):
    _fields_ = (("text", ctypes.c_char * 41), ("bytes", ctypes.c_ubyte * 16))


class Uuid(ctypes.Structure):
    """nvmlUUID_v1_t of nvml.h."""

    _fields_ = (("version", ctypes.c_uint), ("type", ctypes.c_uint), ("value", UuidValue))


VERSION = ctypes.sizeof(Uuid) | 1 << 24


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    twins = Twins(tmp_path, with_mig("a100-sxm4-40gb"))
    twins.start()
    return twins


def by_uuid(twins: Twins, kind: int, value: bytes, version: int = VERSION) -> tuple[int, int | None]:
    wanted, found = Uuid(version, kind), ctypes.c_void_p()
    ctypes.memmove(ctypes.byref(wanted, Uuid.value.offset), value, len(value))
    return twins.library.nvmlDeviceGetHandleByUUIDV(ctypes.byref(wanted), ctypes.byref(found)), found.value


def number(twins: Twins, function: str, *arguments: Any) -> tuple[int, int]:
    value = ctypes.c_uint(77)
    return getattr(twins.library, function)(*arguments, ctypes.byref(value)), value.value


def test_devices_by_uuid_as_text_and_as_bytes(twins: Twins) -> None:
    assert ctypes.sizeof(Uuid) == 52
    gpu = twins.c.state.gpus[-1]
    texts = [gpu.uuid, *(compute.uuid for _, compute in gpu.mig_devices())]
    assert len(texts) > 1
    for text in texts:
        handle = twins.handle("nvmlDeviceGetHandleByUUID", text.encode()).value
        assert by_uuid(twins, TEXT, text.encode()) == (Return.SUCCESS, handle)
        assert by_uuid(twins, BYTES, uuid.UUID(text.partition("-")[2]).bytes) == (Return.SUCCESS, handle)
    assert by_uuid(twins, TEXT, b"GPU-nothing")[0] == Return.NOT_FOUND
    assert by_uuid(twins, BYTES, bytes(16))[0] == Return.NOT_FOUND
    assert by_uuid(twins, TEXT, b"x" * 41)[0] == Return.INVALID_ARGUMENT
    assert by_uuid(twins, 0, gpu.uuid.encode())[0] == Return.INVALID_ARGUMENT
    assert by_uuid(twins, TEXT, gpu.uuid.encode(), VERSION + 1)[0] == Return.ARGUMENT_VERSION_MISMATCH


def test_numa_nodes_and_neighbours(twins: Twins) -> None:
    gpus = twins.c.state.machine.hardware.gpus
    handles = [twins.gpu(index) for index in range(len(gpus))]
    same_root, same_node, system = 30, 40, 50  # nvmlGpuTopologyLevel_t
    levels = set()
    for one, handle in zip(gpus, handles, strict=True):
        assert number(twins, "nvmlDeviceGetNumaNodeId", handle) == (Return.SUCCESS, one.numa_node)
        for other, neighbour in zip(gpus, handles, strict=True):
            code, level = number(twins, "nvmlDeviceGetTopologyCommonAncestor", handle, neighbour)
            wanted = system if one.numa_node != other.numa_node else same_node
            wanted = same_root if one.pcie_root == other.pcie_root else wanted
            assert (code, level) == (Return.SUCCESS, 0 if one is other else wanted)
            levels.add(level)
    assert levels == {0, same_root, system}
    faults.lose_gpu(twins.c.state_file, 1)
    assert number(twins, "nvmlDeviceGetTopologyCommonAncestor", handles[0], handles[1])[0] == Return.GPU_IS_LOST
    assert number(twins, "nvmlDeviceGetTopologyCommonAncestor", handles[0], None)[0] == Return.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("nvmlDeviceGetNvLinkState", (0,)),
        ("nvmlDeviceGetNvLinkRemotePciInfo_v2", (0,)),
        ("nvmlDeviceGetGpuFabricInfo", ()),
        ("nvmlDeviceGetGpuFabricInfoV", ()),
    ],
)
def test_there_is_no_nvlink_and_no_fabric(twins: Twins, function: str, arguments: tuple[int, ...]) -> None:
    assert number(twins, function, twins.gpu(0), *arguments)[0] == Return.NOT_SUPPORTED
    assert number(twins, function, None, *arguments)[0] == Return.INVALID_ARGUMENT


def test_a_variable_names_another_state(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in each call, so that a test may set it late."""
    count = ctypes.c_uint()
    twins.library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    assert count.value == 8
    (tmp_path / "other").mkdir()
    other = Twins(tmp_path / "other", "t4")
    monkeypatch.setenv("GPU_DRA_SIMULATED_STATE", str(other.c.state_file))
    twins.library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    assert count.value == 4
