"""Which capability nodes a MIG device has, as the kernel module says it, and what is said when it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.cdi.mig_capabilities import MigCapabilityNodes
from dra_driver.cdi.spec import DeviceNode
from dra_driver.errors import HardwareError

DEVICES = "Character devices:\n  1 mem\n195 nvidia\n236 nvidia-caps\n237 nvidia-caps-imex-channels\n\nBlock devices:\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    instance = tmp_path / "driver/nvidia/capabilities/gpu3/mig/gi2"
    (instance / "ci0").mkdir(parents=True)
    (tmp_path / "devices").write_text(DEVICES)
    (instance / "access").write_text("DeviceFileMinor: 426\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    (instance / "ci0/access").write_text("DeviceFileMinor: 427\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    return tmp_path


def test_the_nodes_of_gpu_instance_and_compute_instance(proc: Path) -> None:
    assert MigCapabilityNodes(proc).nodes(3, 2, 0) == (
        DeviceNode("/dev/nvidia-caps/nvidia-cap426", "", "c", 236, 426, 0o444, "rwm"),
        DeviceNode("/dev/nvidia-caps/nvidia-cap427", "", "c", 236, 427, 0o444, "rwm"),
    )


def test_an_instance_that_the_driver_does_not_show(proc: Path) -> None:
    with pytest.raises(HardwareError, match=r"gpu3/mig/gi2/ci1/access.*is the host's /proc mounted") as caught:
        MigCapabilityNodes(proc).nodes(3, 2, 1)
    assert caught.value.retryable


def test_a_kernel_without_the_driver(proc: Path) -> None:
    (proc / "devices").write_text("Character devices:\n237 nvidia-caps-imex-channels\n")
    with pytest.raises(HardwareError, match="has no nvidia-caps"):
        MigCapabilityNodes(proc).nodes(3, 2, 0)


def test_a_file_of_another_form(proc: Path) -> None:
    (proc / "driver/nvidia/capabilities/gpu3/mig/gi2/access").write_text("nothing\n")
    with pytest.raises(HardwareError, match="neither minor nor mode"):
        MigCapabilityNodes(proc).nodes(3, 2, 0)
