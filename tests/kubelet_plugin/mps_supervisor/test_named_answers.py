"""What is said to a daemon of protocol 3, and what its answers are worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dra_driver.mps.group import NAMED, MpsGroup, MpsShare
from kubelet_plugin.mps_supervisor import named_answers as answers
from kubelet_plugin.mps_supervisor.named_answers import SeenServer, SeenShare

GROUP = MpsGroup("g", ("GPU-aa-1", "GPU-bb-2"), multi_user=True, protocol=NAMED)
SHARE = MpsShare("a", {"GPU-aa-1": 4096}, 25)
AS_WANTED = SeenShare(4 << 20, 25.0, "0")
SERVER = SeenServer(48201, "Ready", frozenset(GROUP.devices))


def test_commands_are_those_of_the_pages() -> None:
    assert " ".join(answers.create_server(GROUP)) == "server create gpus --uid=0 --allowed-devices=GPU-aa-1,GPU-bb-2"
    alone = replace(GROUP, multi_user=False, devices=("GPU-aa-1",))
    assert " ".join(answers.create_server(alone)) == "server create gpus --allowed-devices=GPU-aa-1"
    assert " ".join(answers.create_share("a")) == "namespace create a --server=gpus"
    assert " ".join(answers.delete_share("a")) == "namespace delete a --server=gpus --force"
    assert " ".join(answers.limit_share(SHARE)) == (
        "namespace set a --server=gpus --pinned-memory-limit=4096M --active-thread-percentage=25 --client-priority=0"
    )
    low = MpsShare("a", low_priority=True)
    assert " ".join(answers.limit_share(low)) == "namespace set a --server=gpus --client-priority=1"


@pytest.mark.parametrize(
    "row",
    [
        "gpus,1000,48201,Ready,/run/nvidia-mps/gpus,GPU-aa-1,GPU-bb-2,-",
        'gpus,1000,48201,Ready,/run/nvidia-mps/gpus,"GPU-aa-1,GPU-bb-2",-',
        "gpus, 1000, 48201, Ready, /run/nvidia-mps/gpus, GPU-aa-1;GPU-bb-2, -",
    ],
)
def test_a_server_is_read_however_its_devices_are_parted(row: str) -> None:
    """The page has one device in its row, of two that were allowed."""
    assert answers.server_of((f"other,0,1,{row.split(',')[3]},/x,GPU-cc-3,-", row)) == SERVER


@pytest.mark.parametrize("row", ["", "gpus,1000", "gpus,1000,-,Ready,/x,GPU-aa-1,-", "others,0,1,Ready,/x,GPU-aa-1,-"])
def test_what_is_no_server_of_ours_is_none(row: str) -> None:
    assert answers.server_of((row,)) is None


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (SERVER, ""),
        (None, "MPS server gpus is gone"),
        (replace(SERVER, status="Initializing"), "MPS server gpus is in status Initializing"),
        (replace(SERVER, devices=frozenset({"GPU-aa-1"})), "MPS server gpus does not have device GPU-bb-2"),
    ],
)
def test_a_server_has_to_be_ready_and_to_have_the_devices(seen: SeenServer | None, problem: str) -> None:
    assert answers.server_problem(GROUP, seen) == problem


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ("4G,25.00,0", AS_WANTED),
        ("4096M,25,0", AS_WANTED),
        ("4096 MiB,25.00,0", AS_WANTED),
        ("4194304K,25.00,0", AS_WANTED),
        ("-,-,1", SeenShare(None, None, "1")),
        ("0,0,0", SeenShare(None, None, "0")),
        ("4294967296,25.00,0", SeenShare(None, 25.0, "0")),  # without a unit it may be anything
        ("4G (soft),all,normal", SeenShare(None, None, "normal")),
    ],
)
def test_what_is_no_limit_for_certain_is_none(fields: str, seen: SeenShare) -> None:
    lines = ("default,gpus,Ready,-,-,0,/x/default", f"a,gpus,Ready,{fields},/x/a", f"a,other,Ready,{fields},/y/a")
    assert answers.shares_of(lines) == {"a": seen}


@pytest.mark.parametrize(
    ("share", "seen", "problem"),
    [
        (SHARE, AS_WANTED, ""),
        (MpsShare("a"), SeenShare(None, None, "0"), ""),
        (MpsShare("a"), SeenShare(None, 100.0, "0"), ""),
        (replace(SHARE, active_thread_percentage=100), replace(AS_WANTED, percentage=None), ""),
        (SHARE, None, "it is gone from the daemon"),
        (SHARE, replace(AS_WANTED, memory_kib=None), "its pinned memory limit is none, not 4096 MiB"),
        (SHARE, replace(AS_WANTED, memory_kib=1), "its pinned memory limit is 1 KiB, not 4096 MiB"),
        (MpsShare("a"), replace(AS_WANTED, percentage=None), "its pinned memory limit is 4096 MiB, not none"),
        (SHARE, replace(AS_WANTED, percentage=None), "its active thread percentage is none, not 25"),
        (replace(SHARE, low_priority=True), AS_WANTED, "its client priority is 0, not 1"),
    ],
)
def test_a_share_has_to_have_all_its_limits(share: MpsShare, seen: SeenShare | None, problem: str) -> None:
    assert answers.share_problem(share, seen) == problem


def test_clients_are_known_by_their_process_ids() -> None:
    rows = ("51023,gpus,0,a,python train.py", "51023,gpus,1,a,python train.py", "51087,gpus,0,b,x", "no client")
    assert answers.clients_of(rows) == {51023, 51087}
