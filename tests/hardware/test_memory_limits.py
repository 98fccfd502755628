"""Limits of a GPU's memory by cgroup: the adapter on simulated GPUs, and what each refusal says."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.nvml import MigControl
from dra_driver.hardware.nvml.memory_limits import UNLIMITED, GpuMemoryLimits, MemoryLimits
from dra_driver.simulation.hardware import faults
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from tests.cgroup_tree import DRIVER, GIB, made, plain_tree, remove
from tests.simulated_node import Node, NodeMaker

FREE = MemoryLimits(0, UNLIMITED, 0)


class Limited:
    def __init__(self, node: Node, hierarchy: CgroupHierarchy) -> None:
        self.node = node
        self.hierarchy = hierarchy
        use_hierarchy(node.state_file, hierarchy)
        self.limits = GpuMemoryLimits(hierarchy)
        self.gpu, self.other = (gpu.uuid for gpu in node.hardware.read_machine().gpus[:2])

    def soft(self, cgroup: Path) -> int:
        found = self.limits.get(self.gpu, cgroup)
        assert found is not None
        return found.soft // GIB


@pytest.fixture
def limited(make_node: NodeMaker, tmp_path: Path) -> Limited:
    return Limited(make_node("h100-sxm5-80gb", driver=DRIVER), plain_tree(tmp_path / "cgroup"))


def test_what_is_set_is_read_and_cleared_for_one_gpu_and_one_cgroup(limited: Limited) -> None:
    one, two = made(limited.hierarchy, "pods/one"), made(limited.hierarchy, "pods/two")
    limited.limits.set(limited.gpu, one, 2 * GIB, 4 * GIB)
    assert limited.limits.get(limited.gpu, one) == MemoryLimits(2 * GIB, 4 * GIB, 0)
    assert limited.limits.get(limited.gpu, two) == FREE == limited.limits.get(limited.other, one)
    limited.limits.clear(limited.gpu, one)
    assert limited.limits.get(limited.gpu, one) == FREE
    assert limited.node.file.read().gpus[0].memory_limits == ()


def test_a_soft_limit_is_reserved_above_and_stays_there_when_its_cgroup_is_removed(limited: Limited) -> None:
    one, two = made(limited.hierarchy, "pods/a/one"), made(limited.hierarchy, "pods/two")
    pods, between = limited.hierarchy.root / "pods", limited.hierarchy.root / "pods/a"
    limited.limits.set(limited.gpu, one, 20 * GIB, 20 * GIB)
    limited.limits.set(limited.gpu, two, 10 * GIB, 40 * GIB)
    assert [limited.soft(each) for each in (one, between, pods)] == [20, 20, 30]
    limited.limits.set(limited.gpu, one, 15 * GIB, 20 * GIB)
    assert [limited.soft(each) for each in (one, between, pods)] == [15, 15, 25]
    remove(one)
    assert [limited.soft(each) for each in (between, pods)] == [15, 25]
    limited.limits.clear(limited.gpu, two)
    assert limited.soft(pods) == 15
    limited.limits.set(limited.gpu, between, 0, UNLIMITED)
    assert limited.soft(pods) == 0


def test_reservations_are_not_more_than_the_gpu_has_and_leaks_count(limited: Limited) -> None:
    one, two = made(limited.hierarchy, "one/x"), made(limited.hierarchy, "two")
    limited.limits.set(limited.gpu, one, 60 * GIB, 60 * GIB)
    with pytest.raises(HardwareError, match="NVML_ERROR_INSUFFICIENT_RESOURCES"):
        limited.limits.set(limited.gpu, two, 30 * GIB, 30 * GIB)
    remove(one)
    with pytest.raises(HardwareError, match="NVML_ERROR_INSUFFICIENT_RESOURCES"):
        limited.limits.set(limited.gpu, two, 30 * GIB, 30 * GIB)
    limited.limits.set(limited.gpu, two, 0, 30 * GIB)


def test_a_reset_and_a_reboot_end_all_limits(limited: Limited) -> None:
    cgroup = made(limited.hierarchy, "one")
    limited.limits.set(limited.gpu, cgroup, GIB, GIB)
    faults.reset_gpu(limited.node.state_file, 0)
    assert limited.limits.get(limited.gpu, cgroup) == FREE


@pytest.mark.parametrize(
    ("soft", "hard", "code"),
    [
        (2 * GIB, GIB, "NVML_ERROR_INVALID_ARGUMENT"),
        (0, 200 * GIB, "NVML_ERROR_INVALID_ARGUMENT"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limited: Limited, soft: int, hard: int, code: str) -> None:
    with pytest.raises(HardwareError, match=code):
        limited.limits.set(limited.gpu, made(limited.hierarchy, "one"), soft, hard)


@pytest.mark.parametrize("name", ["missing", "../elsewhere"])
def test_what_is_no_cgroup_is_refused_in_words(limited: Limited, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(HardwareError, match="NVML_ERROR_NOT_FOUND: there is no such cgroup"):
        limited.limits.set(limited.gpu, limited.hierarchy.root / name, 0, GIB)
    assert limited.limits.get(limited.gpu, limited.hierarchy.root / name) is None


def test_the_root_cannot_be_limited(limited: Limited) -> None:
    with pytest.raises(HardwareError, match="NVML_ERROR_NOT_SUPPORTED: this driver does not account"):
        limited.limits.set(limited.gpu, limited.hierarchy.root, 0, GIB)


def test_only_root_may_set_and_everybody_may_read(limited: Limited) -> None:
    cgroup = made(limited.hierarchy, "one")
    limited.limits.set(limited.gpu, cgroup, 0, GIB)
    limited.node.file.update(lambda state: state.model_copy(update={"privileged": False}))
    with pytest.raises(HardwareError, match="NVML_ERROR_NO_PERMISSION: setting memory limits needs root"):
        limited.limits.set(limited.gpu, cgroup, 0, 2 * GIB)
    assert limited.limits.get(limited.gpu, cgroup) == MemoryLimits(0, GIB, 0)


def test_nothing_speaks_against_it(limited: Limited) -> None:
    assert limited.limits.why_not(limited.gpu) is None


def test_an_older_driver_says_so_and_may_have_none(make_node: NodeMaker, tmp_path: Path) -> None:
    limited = Limited(make_node("h100-sxm5-80gb"), plain_tree(tmp_path / "cgroup"))
    cgroup = made(limited.hierarchy, "one")
    assert "update the NVIDIA driver to 615" in (limited.limits.why_not(limited.gpu) or "")
    with pytest.raises(HardwareError, match="NVML_ERROR_FUNCTION_NOT_FOUND: this driver cannot limit memory"):
        limited.limits.set(limited.gpu, cgroup, 0, GIB)
    assert not limited.limits.may_have_any(limited.gpu)


def test_a_gpu_that_is_gone_may_have_none(limited: Limited) -> None:
    assert limited.limits.may_have_any(limited.gpu)
    faults.lose_gpu(limited.node.state_file, 0)
    assert not limited.limits.may_have_any(limited.gpu)
    assert not limited.limits.may_have_any("GPU-00000000-0000-0000-0000-000000000000")
    assert limited.limits.may_have_any(limited.other)


def test_cgroup_v1_says_so(limited: Limited, tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    old = Limited(limited.node, CgroupHierarchy(tmp_path / "v1"))
    assert f"cgroup v2 is not mounted at {tmp_path / 'v1'}" in (old.limits.why_not(old.gpu) or "")
    with pytest.raises(HardwareError, match="NVML_ERROR_NOT_SUPPORTED"):
        old.limits.set(old.gpu, tmp_path / "v1", 0, GIB)


def test_a_hierarchy_of_v1_stands_in_where_the_node_says_so(limited: Limited, tmp_path: Path) -> None:
    (tmp_path / "memory/pod").mkdir(parents=True)
    standing_in = Limited(limited.node, CgroupHierarchy(tmp_path / "memory", "memory"))
    assert standing_in.limits.why_not(standing_in.gpu) is None
    standing_in.limits.set(standing_in.gpu, tmp_path / "memory/pod", 0, GIB)


def test_mig_is_refused(limited: Limited) -> None:
    control = MigControl()
    control.set_mode(limited.gpu, True)
    assert "MIG mode of" in (limited.limits.why_not(limited.gpu) or "")
    with pytest.raises(HardwareError, match="NVML_ERROR_NOT_SUPPORTED"):
        limited.limits.set(limited.gpu, made(limited.hierarchy, "one"), 0, GIB)
    mig = limited.node.hardware.read_machine().gpus[0].mig
    assert mig is not None
    profile = next(each for each in mig.profiles if each.id == 19)
    made_instance = control.create_gpu_instance(limited.gpu, profile.id, profile.placements[0])
    device = control.create_compute_instance(limited.gpu, made_instance, profile.slice_count)
    assert "is a MIG device" in (limited.limits.why_not(device.uuid) or "")
    with pytest.raises(HardwareError, match="NVML_ERROR_NOT_SUPPORTED"):
        limited.limits.set(device.uuid, limited.hierarchy.root / "one", 0, GIB)


def test_a_library_that_does_something_else_is_found_out(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that rounds, or that answers success for what it ignores."""
    cgroup = made(limited.hierarchy, "one")
    monkeypatch.setattr(pynvml, "nvmlDeviceSetMemoryLimits_v1", lambda _device, _limits: None)
    with pytest.raises(HardwareError, match=f"were set to soft 0, hard {GIB}, and NVML reads soft 0, hard none"):
        limited.limits.set(limited.gpu, cgroup, 0, GIB)


# -- which cgroup a process is in ---------------------------------------------------------------------------------------

SYSTEMD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-abc.scope"


@pytest.mark.parametrize("inside", [SYSTEMD, "/kubepods/burstable/pod1/abc", "/kubepods/pod:1/a"])
def test_the_own_cgroup_of_a_process_in_v2(inside: str) -> None:
    text = f"4:memory:/elsewhere\n0::{inside}\n"
    assert CgroupHierarchy().of_process(text) == Path(f"/sys/fs/cgroup{inside}")


def test_the_own_cgroup_where_v1_stands_in() -> None:
    hierarchy = CgroupHierarchy(Path("/m"), "memory")
    assert hierarchy.of_process("5:cpu,memory:/pod/a\n0::/other\n") == Path("/m/pod/a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4:memory:/a\n", "is in no cgroup of cgroup v2"),
        ("0::/\n", "root cgroup"),
        ("0::/../../kubepods/a\n", "outside of what is seen here"),
        ("", "is in no cgroup"),
    ],
)
def test_where_there_is_none_it_is_said(text: str, said: str) -> None:
    with pytest.raises(HardwareError, match=said):
        CgroupHierarchy().of_process(text)
