"""Calls of nvidia-smi, counted and timed apart from prepare's own time."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dra_driver.hardware.nvidia_smi import NvidiaSmi, SmiFailed
from kubelet_plugin.telling.smi_metrics import SmiMetrics
from tests.cdi.driver_root import add_file


def test_each_call_is_counted_by_command_and_end(tmp_path: Path) -> None:
    add_file(tmp_path, "/usr/bin/nvidia-smi", b"#!/bin/sh\nexit $1\n", executable=True)
    registry = CollectorRegistry()
    smi = NvidiaSmi(tmp_path, 30.0, lambda: None, SmiMetrics(registry))
    smi.run("list", "0")
    smi.run("list", "0")
    with pytest.raises(SmiFailed):
        smi.run("set-timeslice", "1")

    def count(command: str, end: str) -> float | None:
        return registry.get_sample_value("gpu_dra_nvidia_smi_seconds_count", {"command": command, "end": end})

    assert (count("list", "done"), count("set-timeslice", "failed"), count("list", "failed")) == (2.0, 1.0, None)
    seconds = registry.get_sample_value("gpu_dra_nvidia_smi_seconds_sum", {"command": "list", "end": "done"})
    assert seconds is not None
    assert seconds > 0
