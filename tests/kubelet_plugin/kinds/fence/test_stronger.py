"""Fences beyond variables: a namespace of the share's own, and the driver's limit on each container's cgroup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from api.fractions import SharingBackend
from dra_driver.errors import DriverError, HardwareUnavailable, UnsupportedConfig
from dra_driver.hardware.nvml.memory_limits import MemoryLimits
from dra_driver.mps.group import NAMED, folders_of
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.kinds.fence.cgroups import CgroupFences, PreparedShares
from kubelet_plugin.kinds.fence.namespaces import NamespaceLimits, share_name
from kubelet_plugin.kinds.fence.step import fences_in
from kubelet_plugin.memory_fence.edits import OwnHook
from kubelet_plugin.memory_fence.keeper import Fences, LostFence
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName
from tests.devices.builders import gpu
from tests.kubelet_plugin.kinds.fence.claims import (
    SHARES,
    fraction,
    fraction_config,
    node_with,
    prepared,
    unprepared,
    variables,
)
from tests.kubelet_plugin.prepare.node import TestNode, claim

UUID = gpu(0).uuid
GROUP = f"fractions-{UUID.removeprefix('GPU-')}"
CGROUP, NAMESPACE = SharingBackend.CGROUP, SharingBackend.MPS_NAMESPACE
GIB = 2**30


class Room:
    """A ``memory_fence.room.Room`` without hardware: what the kind asks of it."""

    def __init__(self, shares: Fences) -> None:
        self.shares = shares
        self.hook = OwnHook(Path("/var/lib/kubelet/plugins/gpu.nvidia.com/memory-fence/hook"))
        self.problem: str | None = None
        self.hierarchy_problem: str | None = None
        self.away = False
        self.cleared: list[tuple[str, str]] = []
        self.lost: tuple[LostFence, ...] = ()

    @property
    def limits(self) -> Room:
        return self

    keeper = server = limits

    def why_not(self, gpu_uuid: str) -> str | None:
        return self.problem

    def may_have_any(self, gpu_uuid: str) -> bool:
        if self.away:
            raise HardwareUnavailable("NVML hangs")
        return self.problem is None

    def clear(self, claim_uid: str, share_key: str, *, until: float) -> None:
        self.cleared.append((claim_uid, share_key))

    def check(self, *, until: float) -> tuple[LostFence, ...]:
        return self.lost


def cgroup_node(folder: Path, *backends: SharingBackend) -> tuple[TestNode, Room]:
    node = node_with(folder, *backends)
    rooms: list[Room] = []

    def build(shares: Fences) -> Room:
        rooms.append(Room(shares))
        return rooms[0]

    node.cgroup_fences = CgroupFences(folder / "room", build, wanted=True)  # type: ignore[arg-type]
    node.cgroup_fences.start()
    node.cgroup_fences.shares.entries = lambda: node.checkpoint().entries()
    return node, rooms[0]


def backends(node: TestNode, uid: str) -> list[SharingBackend]:
    return [fence.backend for fence in fences_in(node.checkpoint().entries()[uid].steps)]


# -- namespaces -------------------------------------------------------------------------------------------------------


def test_each_share_has_a_namespace_and_containers_see_nothing_above_it(tmp_path: Path) -> None:
    node = node_with(tmp_path, NAMESPACE, SharingBackend.MPS)
    node.claims.add(
        claim("u1", fraction(0)), claim("u2", fraction(1, "20Gi", "0"), configs=[fraction_config(priority="Low")])
    )
    assert prepared(node, "u1") == prepared(node, "u2") == ["gpu-0"]
    (status,) = node.supervisor.now()
    assert (status.group.id, status.group.protocol, status.group.multi_user) == (GROUP, NAMED, True)
    first, second = (each.share for each in status.shares)
    assert (first.name, dict(first.pinned_memory_mib), first.active_thread_percentage) == (
        share_name(SHARES[0]),
        {UUID: 10240},
        25,
    )
    assert (second.active_thread_percentage, second.low_priority) == (None, True)
    spec = node.cdi.read("u1")
    assert spec is not None
    (mount,) = (each for each in spec.devices[0].edits.mounts if each.container_path == "/tmp/nvidia-mps")
    assert mount.host_path == str(folders_of(node.plugin_folder, GROUP).share(share_name(SHARES[0])))
    assert "ro" in mount.options
    assert variables(node, "u1") == {
        "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"{UUID}=10240M",
    }
    assert unprepared(node, "u1") is None
    (status,) = node.supervisor.now()
    assert [each.share.name for each in status.shares] == [share_name(SHARES[1])]
    assert unprepared(node, "u2") is None
    assert node.supervisor.ids() == []


def test_a_namespace_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    node = node_with(tmp_path, NAMESPACE)
    node.claims.add(claim("u1", fraction(0)), claim("u2", fraction(1)))
    assert prepared(node, "u1") == ["gpu-0"]
    node.supervisor.broken = HardwareUnavailable("share s was removed again: its limits read otherwise")
    assert isinstance(prepared(node, "u2"), DriverError)
    node.supervisor.broken = None
    assert "u2" not in node.checkpoint().entries()
    (status,) = node.supervisor.now()
    assert [each.share.name for each in status.shares] == [share_name(SHARES[0])]


def test_a_lost_record_leaves_no_namespace(tmp_path: Path) -> None:
    node = node_with(tmp_path, NAMESPACE)
    node.claims.add(claim("u1", fraction(0)), claim("u2", fraction(1)))
    assert prepared(node, "u1") == prepared(node, "u2") == ["gpu-0"]
    text = (node.state / "checkpoint.json").read_text()
    (node.state / "checkpoint.json").write_text(text.replace('"percent"', '"p"').replace(SHARES[0], SHARES[5], 1))
    assert node.checkpoint().entries()["u1"].state is ClaimState.RECORD_LOST
    assert unprepared(node, "u1") is None
    (status,) = node.supervisor.now()
    assert [each.share.name for each in status.shares] == [share_name(SHARES[1])]


def test_a_lost_share_on_a_node_without_mps_waits_for_no_supervisor(tmp_path: Path) -> None:
    node = node_with(tmp_path)
    node.supervisor.away = True
    tool = NamespaceLimits(node.supervisor, node.plugin_folder)
    node.claims.add(claim("u1", fraction(0), configs=[fraction_config(minimumEnforcement="None")]))
    assert prepared(node, "u1") == ["gpu-0"]
    (fence,) = fences_in(node.checkpoint().entries()["u1"].steps)
    tool.take_down(replace(fence, backend=NAMESPACE))
    assert node.supervisor.calls == []


# -- cgroups ----------------------------------------------------------------------------------------------------------


def test_memory_is_limited_by_the_driver_and_compute_by_mps_beside_it(tmp_path: Path) -> None:
    node, room = cgroup_node(tmp_path, CGROUP, NAMESPACE)
    node.claims.add(claim("u1", fraction(0), configs=[fraction_config(memoryLimit="20Gi")]))
    assert prepared(node, "u1") == ["gpu-0"]
    assert backends(node, "u1") == [CGROUP, NAMESPACE]
    spec = node.cdi.read("u1")
    assert spec is not None
    hooks = [hook for device in spec.devices for hook in device.edits.hooks if "u1" in hook.args]
    assert [(hook.name, hook.args[1:]) for hook in hooks] == [
        ("createRuntime", (str(room.hook.script), "u1", SHARES[0]))
    ]
    assert room.shares.limits_of("u1", SHARES[0]) == [ShareLimit(UUID, 10 * GIB, 20 * GIB)]
    assert room.shares.limits_of("u1", SHARES[1]) is None
    assert room.shares.limits_of("other", SHARES[0]) is None
    # What MPS lets a process have must not be less than what may be borrowed.
    assert variables(node, "u1")["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"{UUID}=20480M"
    assert unprepared(node, "u1") is None
    assert room.cleared == [("u1", SHARES[0])]
    assert room.shares.limits_of("u1", SHARES[0]) is None


def test_several_shares_of_several_gpus_are_limited_in_one_container(tmp_path: Path) -> None:
    node, room = cgroup_node(tmp_path, CGROUP)
    node.claims.add(
        claim(
            "u1", fraction(0, compute="0"), fraction(1, compute="0", request="b"), fraction(2, "1Gi", "0", "gpu-1", "c")
        )
    )
    assert prepared(node, "u1") == ["gpu-0", "gpu-0", "gpu-1"]
    assert backends(node, "u1") == [CGROUP] * 3
    assert [room.shares.limits_of("u1", share) is not None for share in SHARES[:4]] == [True, True, True, False]


def test_compute_cannot_be_had_without_mps(tmp_path: Path) -> None:
    node, _room = cgroup_node(tmp_path, CGROUP)
    node.claims.add(claim("u1", fraction(0)))
    error = prepared(node, "u1")
    assert isinstance(error, UnsupportedConfig)
    assert "nothing on this node can hold a share of gpu-0 to 25 percent, which MPS would do" in str(error)
    assert "switch the MPS supervisor on" in error.hint


@pytest.mark.parametrize(
    ("limit", "said"),
    [("5Gi", "memoryLimit: is below what was counted, 10Gi"), ("200Gi", "memoryLimit: is more than gpu-0 has, 80Gi")],
)
def test_a_limit_between_what_was_counted_and_all_there_is(tmp_path: Path, limit: str, said: str) -> None:
    node, _room = cgroup_node(tmp_path, CGROUP)
    node.claims.add(claim("u1", fraction(0, compute="0"), configs=[fraction_config(memoryLimit=limit)]))
    assert said in str(prepared(node, "u1"))


def test_a_driver_that_cannot_limit_any_more_is_told(tmp_path: Path) -> None:
    node, room = cgroup_node(tmp_path, CGROUP)
    room.problem = "this driver cannot limit memory by cgroup"
    node.claims.add(claim("u1", fraction(0, compute="0")))
    assert "cannot be limited for containers any more: this driver cannot" in str(prepared(node, "u1"))
    assert "u1" not in node.checkpoint().entries()


def test_a_container_without_its_limit_is_told_of(tmp_path: Path) -> None:
    node, room = cgroup_node(tmp_path, CGROUP)
    node.claims.add(claim("u1", fraction(0, compute="0")))
    assert prepared(node, "u1") == ["gpu-0"]
    fences = node.cgroup_fences
    assert not fences.look()
    entry = node.checkpoint().entries()["u1"]
    assert node.kinds().trouble(entry.devices[0], entry, node.machine) == ""
    name = ShareName.of("u1", SHARES[0])
    room.lost = (LostFence(name, Path("/sys/fs/cgroup/x"), UUID, GIB, GIB, MemoryLimits(0, 2**64 - 1, 0)),)
    assert fences.look()
    assert not fences.look()
    assert fences.unfenced() == {"gpu-0"}
    trouble = node.kinds().trouble(entry.devices[0], entry, node.machine)
    assert "the memory limit of cgroup /sys/fs/cgroup/x on GPU" in trouble
    assert "is none, and was soft" in trouble
    room.lost = ()
    assert fences.look()
    assert fences.unfenced() == frozenset()


def test_whether_the_driver_limits_memory_here(tmp_path: Path) -> None:
    node, room = cgroup_node(tmp_path, CGROUP)
    assert node.cgroup_fences.has_limits([UUID]) is True
    assert node.cgroup_fences.has_limits([]) is False
    room.away = True
    assert node.cgroup_fences.has_limits([UUID]) is None
    room.hierarchy_problem = "cgroup v2 is not mounted"
    assert node.cgroup_fences.has_limits([UUID]) is False


def test_where_nobody_wants_it_there_is_no_room(tmp_path: Path) -> None:
    def build(shares: Fences) -> Room:
        raise AssertionError("nothing is built")

    fences = CgroupFences(tmp_path / "room", build, wanted=False)  # type: ignore[arg-type]
    fences.start()
    fences.serve()
    assert fences.has_limits([UUID]) is False
    assert not fences.look()
    fences.stop()


def test_shares_of_claims_that_are_not_prepared_have_no_limits() -> None:
    assert PreparedShares().limits_of("u1", SHARES[0]) is None
