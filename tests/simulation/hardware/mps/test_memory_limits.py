"""Clients in cgroups with limits of their own, with MPS and without: what they see, and what they are refused."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.hardware.nvml.memory_limits import GpuMemoryLimits
from dra_driver.simulation.hardware import create_state, host_root, install, uninstall
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from dra_driver.simulation.hardware.mps import scripts
from tests.cgroup_tree import DRIVER, GIB, RealCgroups, needs_v2, real_cgroups
from tests.simulation.hardware.mps.conftest import MpsNode, facts, shells, wait_until

__all__ = ["real_cgroups"]
pytestmark = [pytest.mark.process, pytest.mark.root, needs_v2]


class FencedNode(MpsNode):
    def __init__(self, folder: Path, cgroups: RealCgroups) -> None:
        super().__init__(folder)
        create_state("h100-sxm5-80gb", self.state_file, seed="node", driver=DRIVER)
        use_hierarchy(self.state_file, cgroups.hierarchy)
        host_root.build(self.root, self.state_file)
        self.cgroups = cgroups
        self.limits = GpuMemoryLimits(cgroups.hierarchy)

    def fence(self, cgroup: Path, *, hard: int, soft: int = 0, gpu: int = 0) -> None:
        self.limits.set(self.uuids[gpu], cgroup, soft, hard)

    def used(self, cgroup: Path) -> int:
        found = self.limits.get(self.uuids[0], cgroup)
        return found.used if found else -1

    def client(self, cgroup: Path, *options: str) -> subprocess.Popen[str]:
        environment = self.environment(CUDA_VISIBLE_DEVICES="0")
        return self.cgroups.start(cgroup, [str(self.root / scripts.CLIENT_PATH), *options], **environment)


@pytest.fixture
def node(tmp_path: Path, real_cgroups: RealCgroups) -> Iterator[FencedNode]:
    made = FencedNode(tmp_path, real_cgroups)
    install(made.state_file)
    nvml = NvmlHardware(driver_root=made.root)
    nvml.start()
    yield made
    nvml.stop()
    uninstall()
    made.close()


def ended(client: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = client.communicate(timeout=20)
    return client.returncode, out, err


@pytest.mark.parametrize("mps", [True, False], ids=["with MPS", "without MPS"])
def test_all_processes_of_a_cgroup_share_its_limit(node: FencedNode, real_cgroups: RealCgroups, mps: bool) -> None:
    if mps:
        node.start(devices="0")
    mine, other = real_cgroups.make("mine"), real_cgroups.make("other")
    node.fence(mine, hard=10 * GIB)
    code, out, err = ended(node.client(mine, "--allocate", "10G"))
    assert (code, err) == (0, "")
    assert [facts(out)[name] for name in ("memory.0", "allocated")] == ["10240M", "10240M"]
    code, _, err = ended(node.client(mine, "--allocate", "10241M"))
    assert code == 1
    assert err.startswith(f"CUDA_ERROR_OUT_OF_MEMORY: out of memory on {node.uuids[0]}: asked for 10241M")
    assert "10240M may be had" in err
    first = node.client(mine, "--allocate", "6G", "--count", "-", "--interval", "0.02")
    wait_until(lambda: node.used(mine) == 6 * GIB, "the first client has its memory")
    assert "4096M may be had" in ended(node.client(mine, "--allocate", "5G"))[2]
    assert ended(node.client(mine, "--allocate", "4G"))[0] == 0
    assert facts(ended(node.client(other, "--allocate", "20G"))[1])["memory.0"] == "81559M"
    first.terminate()
    assert ended(first)[0] == 0
    wait_until(lambda: node.used(mine) == 0, "the memory is given back")


def test_a_limit_above_holds_and_is_not_what_cuda_reports(node: FencedNode, real_cgroups: RealCgroups) -> None:
    leaf = real_cgroups.make("pod/container")
    node.fence(leaf.parent, hard=2 * GIB)
    code, out, _ = ended(node.client(leaf, "--allocate", "2G"))
    assert (code, facts(out)["memory.0"]) == (0, "81559M")
    assert "2048M may be had" in ended(node.client(leaf, "--allocate", "3G"))[2]


def test_nvidia_smi_within_the_cgroup_shows_the_limit(node: FencedNode, real_cgroups: RealCgroups) -> None:
    mine = real_cgroups.make("mine")
    node.fence(mine, hard=10 * GIB)
    query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    smi = node.root / "usr/bin/nvidia-smi"
    assert ended(real_cgroups.start(mine, [str(smi), *query]))[1].split()[:2] == ["10240", "81559"]
    # In a container it finds no Python.
    alone = node.folder / "nvidia-smi"
    text = re.sub("^python=.*", "python=/none/python3", smi.read_text(), flags=re.M)
    alone.write_text(re.sub("^dev=.*", f"dev={node.root / 'dev'}", text, flags=re.M))
    for shell in shells():
        for cgroup, seen in ((mine, "10240"), (real_cgroups.make(f"other-{Path(shell[0]).name}"), "81559")):
            code, out, err = ended(real_cgroups.start(cgroup, [*shell, str(alone), *query]))
            assert (code, err, out.split()[:2]) == (0, "", [seen, "81559"])
    node.limits.clear(node.uuids[0], mine)
    assert "limit" not in re.findall(r"^  (\w+) \d", smi.read_text(), flags=re.M)
