"""Counters as components of the control plane serve them."""

from __future__ import annotations

import math

import pytest

from e2e.bench_packing.counts import Counts

BEFORE = """\
# TYPE scheduler_schedule_attempts_total counter
scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 3
"""
AFTER = """\
# TYPE scheduler_schedule_attempts_total counter
scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 10
scheduler_schedule_attempts_total{profile="other",result="scheduled"} 1
scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 4
# TYPE took_seconds histogram
took_seconds_bucket{result="scheduled",le="0.1"} 50
took_seconds_bucket{result="scheduled",le="0.2"} 90
took_seconds_bucket{result="scheduled",le="+Inf"} 100
took_seconds_sum{result="scheduled"} 12.5
took_seconds_count{result="scheduled"} 100
"""


def test_what_was_counted_between_two_readings() -> None:
    found = Counts.parse(AFTER).since(Counts.parse(BEFORE))
    name = "scheduler_schedule_attempts_total"
    assert found.total(name, result="scheduled") == 8
    assert found.total(name, result="scheduled", profile="default-scheduler") == 7
    assert found.total(name) == 12
    assert found.total("took_seconds_sum") == 12.5
    assert found.total(name, result="error") == 0


def test_a_quantile_lies_evenly_within_its_bucket() -> None:
    found = Counts.parse(AFTER)
    assert found.quantile("took_seconds", 0.5, result="scheduled") == pytest.approx(0.1)
    assert found.quantile("took_seconds", 0.7, result="scheduled") == pytest.approx(0.15)
    assert found.quantile("took_seconds", 0.99, result="scheduled") == pytest.approx(0.2)
    assert math.isnan(found.quantile("took_seconds", 0.5, result="error"))
