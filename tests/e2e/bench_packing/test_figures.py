"""The table that sets both packings beside each other."""

from __future__ import annotations

import math

from api.mig_policy import MigPacking
from e2e.bench_packing.control import API_SERVER, CONTROLLER, SCHEDULER, Reading
from e2e.bench_packing.counts import Counts
from e2e.bench_packing.figures import LINES, Sample, table
from e2e.bench_packing.play import Played
from e2e.bench_packing.seen import Pod

PER_GPU, ACROSS = MigPacking.PER_GPU, MigPacking.ACROSS_GPUS


def sample(*pods: Pod, writes: int = 0, generations: int = 0) -> Sample:
    counts = {
        CONTROLLER: f'gpu_dra_controller_slice_writes_total{{verb="update"}} {writes}\n',
        SCHEDULER: "",
        API_SERVER: (
            'apiserver_watch_events_sizes_sum{group="resource.k8s.io",resource="resourceslices",version="v1"} '
            f"{writes * 2**20}\n"
        ),
    }
    readings = {name: Reading(Counts.parse(text), 360.0) for name, text in counts.items()}
    return Sample(2, 112, Played(pods, 36.0, 56.0), readings, generations)


def pod(waited: float | None, *, refused: bool = False, profile: str = "1g.10gb") -> Pod:
    scheduled = None if waited is None else 10.0 + waited
    return Pod(profile, 5.0, created=10.0, refused=10.1 if refused else None, scheduled=scheduled)


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {cells[1]: cells[2:] for cells in lines}


def test_all_runs_of_a_packing_are_taken_together() -> None:
    per_gpu = [sample(pod(0.1), pod(0.3)), sample(pod(0.2), pod(9.0, refused=True, profile="4g.40gb"))]
    across = [sample(pod(0.1), pod(0.6), writes=3, generations=1), sample(pod(0.2), pod(None), writes=1)]
    found = rows(table({2: {PER_GPU: per_gpu, ACROSS: across}, 10: {PER_GPU: [], ACROSS: []}}))
    assert found["figure"] == ["perGPU", "acrossGPUs", "ratio"]
    assert found["pods created"] == ["4", "4", "1.00"]
    assert found["pods never scheduled"] == ["0", "1", ""]
    assert found["pods refused at first"] == ["1", "0", "0.00"]
    assert found["created -> scheduled at the first try, p50"] == ["200 ms", "200 ms", "1.00"]
    assert found["mean of 4g and larger"] == ["9 s", "-", ""]
    # Two nodes for 36 s, twice: 144 s of a node.
    assert found["slice writes a node and hour"] == ["0", "100", ""]
    assert found["MiB sent on watches"] == ["0 MiB", "100 MiB", ""]
    assert found["generations moved"] == ["0", "1", ""]
    assert found["compute slices in use"] == ["50 %", "50 %", "1.00"]
    assert found["of kube-scheduler"] == ["10 ms/s", "10 ms/s", "1.00"]


def test_every_line_copes_with_a_run_in_which_nothing_happened() -> None:
    for line in LINES:
        value = line.measure([sample()])
        assert value >= 0 or math.isnan(value)


def test_a_size_that_was_not_measured_with_both_is_left_out() -> None:
    assert len(table({1: {PER_GPU: [sample()], ACROSS: []}}).splitlines()) == 2
