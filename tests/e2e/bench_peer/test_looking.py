"""What the benchmark reads off processes, watches and libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dra_driver.kube.interface import EventType, WatchEvent
from dra_driver.processes import Process
from e2e.bench_peer.libraries import make_real, stand_ins
from e2e.bench_peer.processes import Measured, less_idle, seen_from_here
from e2e.bench_peer.registrations import Registrations
from e2e.bench_peer.slices import GPUS, SliceWatch
from e2e.clusters.interface import ClusterError


def process(pid: int) -> Process:
    found = Process.of(pid)
    assert found is not None
    return found


def test_processor_time_is_that_of_the_kernels_clock() -> None:
    me = Measured("me", process(os.getpid()))
    before, between, after = time.process_time_ns(), me.cpu_ms() * 1e6, time.process_time_ns()
    assert before <= between <= after
    assert me.rss_mib() > 1


def test_what_is_spent_without_work_is_no_part_of_the_work() -> None:
    assert less_idle(100.0, 2.0, 10.0) == 80.0


def test_a_process_that_has_ended_is_not_measured() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    known = Process.of(child.pid) or Process(child.pid, 0)
    child.wait()
    for ask in (Measured("child", known).cpu_ms, Measured("child", known).rss_mib):
        with pytest.raises(ProcessLookupError, match="child has ended"):
            ask()


def test_a_child_is_found_by_its_innermost_pid() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        found = seen_from_here(process(os.getpid()), child.pid)
        assert found is not None
        assert found.pid == child.pid
        assert child.stdin is not None
    assert seen_from_here(process(os.getpid()), child.pid) is None


def event(kind: EventType, name: str, devices: int, of: int = 1, generation: int = 1) -> WatchEvent:
    found: dict[str, Any] = {
        "metadata": {"name": name},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "node-0",
            "pool": {"name": "node-0", "generation": generation, "resourceSliceCount": of},
            "devices": [{"name": f"{name}-{number}"} for number in range(devices)],
        },
    }
    return WatchEvent(kind, found)


def test_slices_are_whole_when_the_pool_counts_and_has_every_gpu() -> None:
    watch = SliceWatch()
    watch.see(event(EventType.ADDED, "a", GPUS, of=2))
    with pytest.raises(ClusterError, match="1 slices, 8 devices"):
        watch.wait_whole(0)
    watch.see(event(EventType.ADDED, "b", 1, of=2))
    since = watch.wait_whole(0)
    watch.see(event(EventType.MODIFIED, "b", 2, of=2))
    assert watch.wait_whole(0) == since, "it was whole already"
    assert watch.writes == 3


def test_a_wipe_ends_that() -> None:
    watch = SliceWatch()
    watch.see(event(EventType.ADDED, "a", GPUS))
    assert not watch.wait_deletion(0, 0)
    watch.see(event(EventType.DELETED, "a", GPUS))
    assert watch.wait_deletion(0, 0)
    with pytest.raises(ClusterError, match="0 slices"):
        watch.wait_whole(0)
    watch.see(event(EventType.ADDED, "c", GPUS - 1))
    with pytest.raises(ClusterError, match="7 devices"):
        watch.wait_whole(0)


def test_registrations_are_read_line_by_line_as_they_come(tmp_path: Path) -> None:
    log = tmp_path / "kubelet.log"
    log.write_text('I1130 "Plugin Watcher Start"\n')
    found = Registrations(log)
    found.wait_for_none()
    assert (found.registered, found.count) == (False, 0)
    with log.open("a") as more:
        more.write('I1130 "Registered DRA plugin" driverName="gpu.nvi')
        more.flush()
        found.look()
        assert not found.registered, "half a line"
        more.write('dia.com"\nI1130 other\n')
    found.wait_for_more(0)
    assert (found.registered, found.count) == (True, 1)
    with log.open("a") as more:
        more.write('I1130 "Unregistered DRA plugin" driverName="gpu.nvidia.com"\n')
    found.wait_for_none()
    assert (found.registered, found.count) == (False, 1)


def library_folder(root: Path) -> Path:
    folder = root / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libcuda.so.580.1").write_text("simulated\n")
    (folder / "libcuda.so.1").symlink_to("libcuda.so.580.1")
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    (folder / "libnvidia-tls.so.580.1").write_text("simulated\n")
    (folder / "libnvidia-ml.so.580.1").write_bytes(b"\x7fELF...")
    (folder / ".simulated-state").write_text("state.json\n")
    return folder


def test_texts_that_stand_for_libraries_have_the_names_of_the_links_to_them(tmp_path: Path) -> None:
    folder = library_folder(tmp_path)
    assert [(path.name, soname) for path, soname in stand_ins(folder)] == [
        ("libcuda.so.580.1", "libcuda.so.1"),
        ("libnvidia-tls.so.580.1", "libnvidia-tls.so.580.1"),
    ]


def test_they_become_libraries_of_that_name(tmp_path: Path) -> None:
    folder = library_folder(tmp_path)
    try:
        make_real(tmp_path)
    except ClusterError as error:
        pytest.skip(str(error))
    assert not list(stand_ins(folder))
    content = (folder / "libcuda.so.580.1").read_bytes()
    assert content.startswith(b"\x7fELF")
    assert b"\0libcuda.so.1\0" in content
