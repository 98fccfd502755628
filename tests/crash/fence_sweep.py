"""Kills a plugin at every file operation of a fence, of its clearing, and of what the next plugin does at its start.

Run in a process of its own (``python -m tests.crash.fence_sweep SCENARIO FOLDER STRIDE``), because it forks, as
``prepare_sweep`` does, whose child ends itself just before its n-th operation on the node's files. The simulated GPUs
keep their state in a file of the node, so there is a kill around every change of a limit too. Beside it runs a
container of another share on the same GPU, and one that ends while nobody looks. n goes up by STRIDE until the
child gets through. Prints the number of kills.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation.hardware import create_state, host_root, install
from kubelet_plugin.memory_fence.container import Container
from kubelet_plugin.memory_fence.share import ShareName
from tests.cgroup_tree import DRIVER, plain_tree
from tests.crash.prepare_sweep import killed_at
from tests.kubelet_plugin.memory_fence.lab import Lab

BYSTANDER = "bystander"


class Fences:
    """A share of two GPUs, one container that has it, another share, and a container that has that."""

    def __init__(self, folder: Path) -> None:
        state = folder / "gpus.json"
        folder.mkdir(parents=True)
        create_state("h100-sxm5-80gb", state, driver=DRIVER)
        host_root.build(folder / "host", state)
        install(state)
        NvmlHardware(driver_root=folder / "host").start()
        self.lab = Lab(folder, state, plain_tree(folder / "cgroup"))
        self.share = self.lab.prepare("mine", gpu0=(30, 40), gpu1=(10, 20))
        self.container = self.lab.container("mine")
        self.bystanders: tuple[ShareName, Container] = (
            self.lab.prepare(BYSTANDER, gpu0=(5, 6)),
            self.lab.container(BYSTANDER, pod="pod2"),
        )
        self.lab.keeper().fence(*self.bystanders)

    def fence(self) -> None:
        self.lab.keeper().fence(self.share, self.container)

    def clear(self) -> None:
        self.lab.keeper().clear(self.share.claim_uid, self.share.key)

    def recovered(self) -> None:
        assert self.lab.keeper().reconcile() == ()

    def forget(self) -> None:
        del self.lab.shares.limits[self.share.claim_uid, self.share.key]

    def nothing_is_left(self) -> None:
        """Of anything but the bystander, whose fence has held all the time."""
        assert self.lab.fence_of(self.bystanders[1]) == (5, 6)
        assert [self.lab.reserved(gpu) for gpu in (0, 1)] == [5, 0]
        its = (BYSTANDER, "/pod2.slice ", "/kubepods.slice ")
        assert not [each for each in self.lab.left() if not any(word in each for word in its)]

    def is_fenced(self) -> None:
        assert [self.lab.fence_of(self.container, gpu) for gpu in (0, 1)] == [(30, 40), (10, 20)]
        assert [self.lab.reserved(gpu) for gpu in (0, 1)] == [35, 10]
        assert self.lab.keeper().check() == ()


def crash_in_fence_then_again(fences: Fences, folder: Path, position: int) -> bool:
    """The hook's runtime tries again, with the same container as far as we can tell."""
    killed = killed_at(position, folder, fences.fence)
    fences.recovered()
    fences.fence()
    fences.is_fenced()
    fences.clear()
    fences.nothing_is_left()
    return killed


def crash_in_fence_then_its_container_ends(fences: Fences, folder: Path, position: int) -> bool:
    """What usually happens: the hook gets no answer, and the runtime removes the cgroup."""
    killed = killed_at(position, folder, fences.fence)
    fences.lab.end(fences.container)
    fences.recovered()
    fences.nothing_is_left()
    return killed


def crash_in_fence_then_unprepared(fences: Fences, folder: Path, position: int) -> bool:
    killed = killed_at(position, folder, fences.fence)
    fences.forget()
    fences.recovered()
    assert fences.lab.fence_of(fences.container) == (0, None)
    fences.nothing_is_left()
    return killed


def crash_in_clear(fences: Fences, folder: Path, position: int) -> bool:
    fences.fence()
    killed = killed_at(position, folder, fences.clear)
    fences.clear()
    fences.recovered()
    fences.nothing_is_left()
    return killed


def crash_in_clear_after_the_end(fences: Fences, folder: Path, position: int) -> bool:
    """What is reserved above is taken away once, not twice."""
    fences.fence()
    fences.lab.end(fences.container)
    killed = killed_at(position, folder, fences.clear)
    fences.recovered()
    fences.clear()
    fences.nothing_is_left()
    return killed


def crash_in_recovery(fences: Fences, folder: Path, position: int) -> bool:
    """Of a share that is gone, with one container that lives and one that has ended."""
    fences.fence()
    ended = fences.lab.container("ended", pod="pod3")
    fences.lab.keeper().fence(fences.share, ended)
    fences.lab.end(ended)
    fences.forget()
    killed = killed_at(position, folder, fences.recovered)
    fences.recovered()
    fences.nothing_is_left()
    return killed


SCENARIOS: dict[str, Callable[[Fences, Path, int], bool]] = {
    "fence-again": crash_in_fence_then_again,
    "fence-end": crash_in_fence_then_its_container_ends,
    "fence-unprepare": crash_in_fence_then_unprepared,
    "clear": crash_in_clear,
    "clear-ended": crash_in_clear_after_the_end,
    "recovery": crash_in_recovery,
}


def sweep(scenario: str, folder: Path, stride: int) -> int:
    """How many kills there were until the operation got through; each ``stride``-th is tried."""
    position = 1
    while True:
        here = folder / f"{scenario}-{position}"
        if not SCENARIOS[scenario](Fences(here), here, position):
            return position // stride
        position += stride


def main(arguments: Sequence[str]) -> None:
    scenario, folder, stride = arguments
    print(sweep(scenario, Path(folder), int(stride)))


if __name__ == "__main__":
    main(sys.argv[1:])
