"""Limits of shares: set, cleared, found again after a crash, and looked at."""

from __future__ import annotations

import json
import threading
import time

import pytest

from dra_driver.errors import HardwareError, StateError
from dra_driver.simulation.hardware import faults
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from kubelet_plugin.memory_fence.container import Container, ContainerGone, parse_state
from kubelet_plugin.memory_fence.keeper import NotPrepared
from kubelet_plugin.memory_fence.share import ShareName
from kubelet_plugin.prepare.locks import LockBusy, NamedLocks
from tests.cgroup_tree import GIB, made
from tests.kubelet_plugin.memory_fence.lab import CLAIM, SHARE, Lab


def test_a_share_of_two_gpus_is_fenced_and_cleared(lab: Lab) -> None:
    share, container = lab.prepare(gpu0=(2, 10), gpu1=(0, 20)), lab.container()
    keeper = lab.keeper()
    keeper.fence(share, container)
    assert [lab.fence_of(container, gpu) for gpu in (0, 1, 2)] == [(2, 10), (0, 20), (0, None)]
    assert keeper.check() == ()
    keeper.clear(CLAIM, SHARE)
    assert [lab.fence_of(container, gpu) for gpu in (0, 1)] == [(0, None), (0, None)]
    keeper.clear(CLAIM, SHARE)
    assert lab.left() == []


def test_each_container_of_a_claim_has_limits_of_its_own(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(1, 10)), lab.keeper()
    containers = [lab.container(f"c{number}") for number in range(8)]
    errors: list[Exception] = []

    def fence(container: Container) -> None:
        try:
            keeper.fence(share, container)
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [threading.Thread(target=fence, args=(each,)) for each in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert {lab.fence_of(each) for each in containers} == {(1, 10)}
    assert lab.reserved() == 8
    lab.unprepare(share)
    assert lab.left() == []


def test_shares_of_one_gpu_in_one_container_add_up(lab: Lab) -> None:
    one, two = lab.prepare("one", gpu0=(4, 10)), lab.prepare("two", gpu0=(6, 20), gpu1=(0, 5))
    container, keeper = lab.container(), lab.keeper()
    keeper.fence(one, container)
    keeper.fence(two, container)
    assert [lab.fence_of(container, gpu) for gpu in (0, 1)] == [(10, 30), (0, 5)]
    assert keeper.check() == ()
    keeper.clear(CLAIM, "one")
    assert lab.fence_of(container) == (6, 20)
    keeper.clear(CLAIM, "two")
    assert lab.left() == []


def test_a_hook_that_is_run_twice_counts_once(lab: Lab) -> None:
    share, container, keeper = lab.prepare(gpu0=(4, 10)), lab.container(), lab.keeper()
    keeper.fence(share, container)
    keeper.fence(share, container)
    assert lab.fence_of(container) == (4, 10)
    lab.unprepare(share)
    assert lab.left() == []


# -- containers that end --------------------------------------------------------------------------------------------------


def test_nothing_stays_reserved_for_a_container_that_has_ended(lab: Lab) -> None:
    share, other, keeper = lab.prepare(gpu0=(10, 20)), lab.prepare("other", gpu0=(5, 5)), lab.keeper()
    one, two = lab.container("one"), lab.container("two", pod="pod2")
    keeper.fence(share, one)
    keeper.fence(other, two)
    lab.end(one)
    assert lab.reserved() == 15, "the driver keeps it"
    keeper.clear(CLAIM, SHARE)
    assert lab.reserved() == 5
    assert lab.fence_of(two) == (5, 5)
    keeper.clear(CLAIM, "other")
    assert lab.left() == []


def test_a_pod_that_is_gone_with_its_containers_leaves_nothing_either(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(10, 20)), lab.keeper()
    container = lab.container()
    pod = lab.cgroup(container).parent
    keeper.fence(share, container)
    lab.end(container)
    for file in pod.iterdir():
        file.unlink()
    pod.rmdir()
    assert lab.reserved() == 10
    keeper.clear(CLAIM, SHARE)
    assert lab.reserved() == 0
    assert lab.left() == []


def test_a_container_that_is_started_again_gets_its_limits_without_the_earlier_ones_reservation(lab: Lab) -> None:
    """70 of 80 GiB, again and again: what stays reserved would leave no room."""
    share, keeper = lab.prepare(gpu0=(70, 70)), lab.keeper()
    for number in range(5):
        container = lab.container(f"run{number}")
        keeper.fence(share, container)
        assert lab.fence_of(container) == (70, 70)
        lab.end(container)
    assert keeper.reconcile() == ()
    assert lab.left() == []


def test_what_an_administrator_has_reserved_above_stays(lab: Lab) -> None:
    share, keeper, container = lab.prepare(gpu0=(10, 20)), lab.keeper(), lab.container()
    lab.limits.set(lab.gpus[0], lab.hierarchy.root / "kubepods.slice", 7 * GIB, 80 * GIB - GIB)
    keeper.fence(share, container)
    assert lab.reserved() == 17
    lab.end(container)
    keeper.clear(CLAIM, SHARE)
    assert lab.reserved() == 7


def test_without_the_dmem_controller_nothing_above_is_touched(lab: Lab) -> None:
    """The misc backend has no hierarchy: what is read above is a limit of somebody else's."""
    share, keeper, container = lab.prepare(gpu0=(10, 20)), lab.keeper(), lab.container()
    keeper.fence(share, container)
    lab.end(container)
    for file in lab.hierarchy.root.rglob("dmem.max"):
        file.unlink()
    keeper.clear(CLAIM, SHARE)
    assert lab.reserved() == 10


# -- crashes and restarts --------------------------------------------------------------------------------------------------


def test_a_new_plugin_clears_what_is_no_longer_prepared_and_keeps_the_rest(lab: Lab) -> None:
    gone, kept = lab.prepare("gone", gpu0=(5, 10)), lab.prepare("kept", gpu0=(6, 10))
    first, second, third = lab.container("first"), lab.container("second"), lab.container("third", pod="pod3")
    before = lab.keeper()
    before.fence(gone, first)
    before.fence(kept, second)
    before.fence(kept, third)
    lab.end(second)
    del lab.shares.limits[CLAIM, "gone"]
    assert lab.keeper().reconcile() == ()
    assert lab.fence_of(first) == (0, None)
    assert lab.fence_of(third) == (6, 10)
    assert lab.reserved() == 6


def test_after_a_reboot_there_is_nothing_to_clear(lab: Lab) -> None:
    share = lab.prepare(gpu0=(5, 10))
    container = lab.container()
    lab.keeper().fence(share, container)
    faults.reboot(lab.state_file, "next-boot")
    lab.boot = "next-boot"
    lab.end(container)
    other, late = lab.prepare("other", gpu0=(9, 9)), lab.container("late")
    keeper = lab.keeper()
    keeper.fence(other, late)
    keeper.clear(CLAIM, SHARE)
    assert lab.reserved() == 9
    lab.unprepare(other)
    assert lab.left() == []


def test_a_gpu_that_is_lost_keeps_no_claim(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(5, 10), gpu1=(0, 10)), lab.keeper()
    keeper.fence(share, lab.container())
    faults.lose_gpu(lab.state_file, 0)
    keeper.clear(CLAIM, SHARE)
    assert list(lab.records.iterdir()) == []


def test_what_cannot_be_cleared_stays_on_record_and_is_said(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(5, 10)), lab.keeper()
    container = lab.container()
    keeper.fence(share, container)
    faults.inject_error(lab.state_file, "nvmlDeviceSetMemoryLimits_v1", 999, times=2)
    with pytest.raises(HardwareError, match="NVML_ERROR_UNKNOWN"):
        keeper.clear(CLAIM, SHARE)
    del lab.shares.limits[CLAIM, SHARE]
    (problem,) = keeper.reconcile()
    assert problem.startswith(f"memory limits of share {SHARE} of claim {CLAIM} are not cleared: nvmlDeviceSet")
    assert keeper.reconcile() == ()
    assert lab.left() == []


def test_one_gpu_that_fails_does_not_keep_the_limits_of_others(lab: Lab) -> None:
    share, keeper, container = lab.prepare(gpu0=(5, 10), gpu1=(5, 10)), lab.keeper(), lab.container()
    keeper.fence(share, container)
    faults.inject_error(lab.state_file, "nvmlDeviceSetMemoryLimits_v1", 999, gpu=0, times=1)
    with pytest.raises(HardwareError, match=f"{lab.gpus[0]} and .* failed: NVML_ERROR_UNKNOWN"):
        keeper.clear(CLAIM, SHARE)
    assert [lab.fence_of(container, gpu) for gpu in (0, 1)] == [(5, 10), (0, None)]
    keeper.clear(CLAIM, SHARE)
    assert lab.left() == []


def test_a_damaged_record_is_set_aside_and_another_versions_left_alone(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(5, 10)), lab.keeper()
    (lab.records / f"{CLAIM}_{SHARE}.json").write_text("{")
    newer = lab.records / f"{CLAIM}_newer.json"
    newer.write_text(json.dumps({"version": 99}))
    keeper.fence(share, lab.container())
    keeper.reconcile()
    assert newer.exists()
    with pytest.raises(StateError, match="is of version 99"):
        keeper.clear(CLAIM, "newer")
    lab.unprepare(share)
    assert sorted(each.name for each in lab.records.iterdir()) == [f"{CLAIM}_{SHARE}.json.damaged", newer.name]


# -- looking again ---------------------------------------------------------------------------------------------------------


def test_a_fence_that_somebody_took_away_is_found(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(2, 10), gpu1=(0, 20)), lab.keeper()
    container, ended = lab.container(), lab.container("ended")
    keeper.fence(share, container)
    keeper.fence(share, ended)
    lab.end(ended)
    lab.limits.clear(lab.gpus[1], lab.cgroup(container))
    (lost,) = keeper.check()
    assert (lost.share, lost.cgroup, lost.gpu_uuid) == (share, lab.cgroup(container), lab.gpus[1])
    assert (lost.soft, lost.hard) == (0, 20 * GIB)
    assert lost.found is not None
    assert not lost.found.limited
    keeper.fence(share, container)
    assert keeper.check() == ()


def test_a_gpu_that_does_not_answer_is_passed_over(lab: Lab) -> None:
    share, keeper = lab.prepare(gpu0=(2, 10)), lab.keeper()
    keeper.fence(share, lab.container())
    faults.inject_error(lab.state_file, "nvmlDeviceGetMemoryLimits_v1", 999)
    assert keeper.check() == ()


# -- refusals --------------------------------------------------------------------------------------------------------------


def test_a_share_that_is_not_prepared_is_refused(lab: Lab) -> None:
    with pytest.raises(NotPrepared, match="share gpu-9 of claim u1 is not prepared on this node"):
        lab.keeper().fence(ShareName("u1", "gpu-9"), lab.container())
    assert lab.left() == []


@pytest.mark.parametrize(
    ("cgroup", "said"),
    [
        ("0::/\n", "root cgroup"),
        ("0::/kubepods.slice/pod1.slice\n", "which is not a cgroup of container c1 alone"),
        ("0::/kubepods.slice/pod1.slice/cri-containerd-c1-gone.scope\n", "is not there"),
        ("0::/../other/cri-containerd-c1.scope\n", "outside of what is seen here"),
        ("7:memory:/kubepods/c1\n", "is in no cgroup of cgroup v2"),
    ],
)
def test_a_process_that_is_not_where_a_container_is_is_refused(lab: Lab, cgroup: str, said: str) -> None:
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    lab.move(container.pid, cgroup)
    with pytest.raises((HardwareError, ContainerGone), match=said):
        lab.keeper().fence(share, container)
    assert lab.left() == []


def test_a_process_that_has_ended_is_refused(lab: Lab) -> None:
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    lab.move(container.pid, (lab.proc / str(container.pid) / "cgroup").read_text(), state="Z")
    with pytest.raises(ContainerGone, match="has ended"):
        lab.keeper().fence(share, container)
    with pytest.raises(ContainerGone, match="process 1 of container c2 is not there"):
        lab.keeper().fence(share, Container("c2", 1))


def test_a_process_that_becomes_another_while_it_is_fenced_is_refused_and_nothing_stays(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, container = lab.prepare(gpu0=(3, 10)), lab.container()
    cgroup = (lab.proc / str(container.pid) / "cgroup").read_text()
    set_limits = lab.limits.set

    def set_and_replace(gpu_uuid: str, path: object, soft: int, hard: int) -> None:
        set_limits(gpu_uuid, lab.cgroup(container), soft, hard)
        lab.move(container.pid, cgroup, started=200)

    monkeypatch.setattr(lab.limits, "set", set_and_replace)
    with pytest.raises(ContainerGone, match="has ended while it was limited"):
        lab.keeper().fence(share, container)
    monkeypatch.undo()
    assert lab.fence_of(container) == (0, None)
    assert lab.left() == []


def test_what_the_library_refuses_leaves_nothing(lab: Lab) -> None:
    share, container = lab.prepare(gpu0=(3, 10), gpu1=(0, 500)), lab.container()
    with pytest.raises(HardwareError, match="NVML_ERROR_INVALID_ARGUMENT"):
        lab.keeper().fence(share, container)
    assert lab.fence_of(container) == (0, None)
    assert lab.left() == []


def test_cgroup_v1_is_refused(lab: Lab) -> None:
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    (lab.hierarchy.root / "cgroup.controllers").unlink()
    use_hierarchy(lab.state_file, lab.hierarchy)
    with pytest.raises(HardwareError, match="NVML_ERROR_NOT_SUPPORTED"):
        lab.keeper().fence(share, container)


def test_another_plugin_that_holds_the_share_is_waited_for_no_longer_than_the_hook_waits(lab: Lab) -> None:
    share, container = lab.prepare(gpu0=(0, 10)), lab.container()
    keeper = lab.keeper()
    others = NamedLocks(lab.plugin / "locks")
    with (
        others.hold([f"share-{CLAIM}-{SHARE}"]),
        pytest.raises(LockBusy),
    ):
        keeper.fence(share, container, until=time.monotonic() + 0.2)
    keeper.fence(share, container, until=time.monotonic() + 10)
    assert lab.fence_of(container) == (0, 10)


def test_a_name_that_leads_elsewhere_is_refused() -> None:
    for claim, key in (("../up", "a"), ("u", ""), ("u", "a/b"), ("", "a"), ("-u", "a"), ("u", "a_b")):
        with pytest.raises(StateError, match="cannot be part of the name of a share"):
            ShareName.of(claim, key)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"id": "c", "pid": 0}', '{"id": "", "pid": 7}', '{"id": "c", "pid": "7"}', '{"id": "c"'],
)
def test_what_is_no_oci_state_is_refused(text: str) -> None:
    with pytest.raises(StateError, match="the runtime's state"):
        parse_state(text)


def test_crio_puts_the_process_one_deeper(lab: Lab) -> None:
    """crun's subgroup: ``crio-<id>.scope/container``."""
    share = lab.prepare(gpu0=(0, 10))
    cgroup = made(lab.hierarchy, "kubepods.slice/pod1.slice/crio-abc.scope/container")
    lab.move(77, f"0::/{cgroup.relative_to(lab.hierarchy.root)}\n")
    lab.keeper().fence(share, Container("abc", 77))
    found = lab.limits.get(lab.gpus[0], cgroup)
    assert found is not None
    assert found.hard == 10 * GIB
