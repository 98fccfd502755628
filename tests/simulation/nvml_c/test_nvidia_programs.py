"""NVIDIA's GPU Feature Discovery on the C library and the tree of every machine: a program in Go, unchanged.

The suite on real clusters runs it on a node, and the device plugin beside it (``e2e/suites/test_nvidia_programs.py``).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.description import recorded_machines
from e2e.clusters import programs
from e2e.kit.node_programs import on_gpus_of
from e2e.kit.nvidia_programs import GPU_RESOURCE, Strategy, labels, parse_labels
from tests.simulated_node import Node, NodeMaker, make_node
from tests.simulation.nvml_c.test_reading import with_mig
from tests.simulation.nvml_c.twins import needs_compiler

__all__ = ["make_node"]
pytestmark = [
    needs_compiler,
    pytest.mark.process,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root"),
]


@pytest.fixture(scope="module")
def program() -> Path:
    built = programs.find(programs.DEVICE_PLUGIN)
    if built is None:
        pytest.skip(f"no GPU Feature Discovery: {programs.DEVICE_PLUGIN.target} is not built (make programs)")
    return built / "gpu-feature-discovery"


@pytest.mark.parametrize("name", recorded_machines())
def test_labels_say_what_each_machine_is(make_node: NodeMaker, program: Path, name: str) -> None:
    check_labels(make_node(name), program, Strategy.NONE)


@pytest.mark.parametrize("strategy", Strategy)
def test_labels_of_mig_devices_and_parts_of_them(make_node: NodeMaker, program: Path, strategy: Strategy) -> None:
    """One of the machine's GPUs is divided, which NVIDIA's single strategy calls invalid."""
    node = make_node(with_mig("a100-sxm4-40gb"))
    if strategy is Strategy.SINGLE:
        found = discover(program, node.root, strategy)
        assert found[f"{GPU_RESOURCE}.product"].endswith("-MIG-INVALID")
    else:
        check_labels(node, program, strategy)


def check_labels(node: Node, program: Path, strategy: Strategy) -> None:
    assert discover(program, node.root, strategy) == labels(node.hardware.read_machine(), strategy)


def discover(program: Path, root: Path, strategy: Strategy) -> dict[str, str]:
    options = ["--oneshot", "--no-timestamp", "--use-node-feature-api=false", "--machine-type-file=", "--output-file="]
    command = on_gpus_of(root, [str(program), *options, f"--mig-strategy={strategy}"])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(root / host_root.LIBRARY_FOLDER)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert not done.returncode, done.stderr
    return parse_labels(done.stdout)
