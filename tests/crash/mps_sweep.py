"""Kills a supervisor at every operation of a start, a stop or its own take-over, or at those of a share, and looks at
what the next one makes of it.

Run in a process of its own (``python -m tests.crash.mps_sweep SCENARIO FOLDER STRIDE``), because it forks, as
``prepare_sweep`` does: the child ends itself with ``os._exit`` just before its n-th operation on the node's files (an
audit hook sees them), before a program is started, or around a mount. The simulated GPUs keep their state in a file of
the node, so there is a kill around every compute mode too. Beside it runs another group with a client that counts. n
goes up by STRIDE until the child gets through. Prints the number of kills.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from dra_driver.cdi.roots import Root
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.mps.group import GroupState, MpsGroup
from dra_driver.simulation.hardware import install
from kubelet_plugin.mps_supervisor import kernel
from kubelet_plugin.mps_supervisor.adoption import adopt
from kubelet_plugin.mps_supervisor.cgroups import Cgroups
from kubelet_plugin.mps_supervisor.daemon import Daemons
from kubelet_plugin.mps_supervisor.gpus import NodeGpus
from kubelet_plugin.mps_supervisor.group_steps import GroupSteps, Tools
from kubelet_plugin.mps_supervisor.metrics import SupervisorMetrics
from kubelet_plugin.mps_supervisor.namespaces import Namespaces
from kubelet_plugin.mps_supervisor.probe import Protocols
from kubelet_plugin.mps_supervisor.running import Running
from kubelet_plugin.mps_supervisor.surroundings import Home
from tests.kubelet_plugin.mps_supervisor.lab import NAMED_DRIVER, Lab

KILLED = 9
EVENTS = frozenset(("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "subprocess.Popen"))
BOOT = "this-boot"
GROUP, BYSTANDER = "claim-1", "bystander"
PATIENCE = 30.0


class Supervisors:
    """What each supervisor of the node is made of; it remembers nothing, as a new process does."""

    def __init__(self, lab: Lab, *, has_shares: bool) -> None:
        self.lab = lab
        self.group = lab.named_group(GROUP) if has_shares else lab.group(GROUP)
        self.share = lab.share()
        install(lab.state_file)
        self._nvml = NvmlHardware(driver_root=lab.host)
        self._nvml.start()

    def steps(self) -> GroupSteps:
        isolation, cgroups = Namespaces(), Cgroups(None)
        home = Home(Root(self.lab.host, str(self.lab.host)), namespaces=None)
        gpus = NodeGpus(self._nvml, lambda: "simulated")
        self.daemons, protocols = (
            Daemons(home, isolation, cgroups, SupervisorMetrics(CollectorRegistry())),
            Protocols(home, isolation),
        )
        return GroupSteps(self.lab.folder, lambda: BOOT, Tools(gpus, isolation, cgroups, self.daemons, protocols))

    def start(self, group: MpsGroup) -> None:
        self.steps().start(group, time.monotonic() + PATIENCE, threading.Event())

    def stop(self, group_id: str) -> None:
        self.steps().remove(group_id, drain=0)

    def adopt(self) -> dict[str, Running]:
        return {each.group.id: each for each in adopt(self.lab.folder, BOOT, self.steps(), Namespaces())}

    def put(self) -> None:
        self.steps().put_share(self.group, self.share)

    def remove(self) -> None:
        self.steps().remove_share(GROUP, self.share.name)

    def mend(self) -> None:
        """As the observer has it done."""
        self.steps().mend(GROUP)

    def has_the_share(self) -> bool:
        """It is there with its limits, or nothing of it is: in the record, in the daemon and in the folders."""
        folders, (wanted, leaving) = self.lab.folders(GROUP), self.steps().recorded(GROUP)
        assert not leaving
        seen = self.daemons.shares.seen(folders)
        if wanted:
            assert wanted == (self.share,)
            assert self.daemons.shares.problem(self.group, folders, self.share, seen) == ""
            return True
        assert seen.shares == {}
        assert not folders.share(self.share.name).exists()
        return False

    def left(self) -> list[str]:
        """Of anything but the bystander."""
        folder, gpu = self.lab.folders(BYSTANDER), 1
        found = set(self.lab.left())
        # Looked for once: its control tool leaves a sleep behind that ends by itself.
        processes = {each for each in found if each.startswith("process ") and each.endswith(f" of {BYSTANDER}")}
        assert len(processes) > 1, found  # daemon and server
        its = {f"mount {folder.shm}", f"folder {BYSTANDER}", f"mode of GPU {gpu}", *processes}
        assert found >= its, (found, its)
        return sorted(found - its) + [str(each) for each in self.lab.cgroups()]


def killed_at(position: int, folder: Path, act: Callable[[], object]) -> bool:
    """Whether the child that does ``act`` was killed at its ``position``-th operation."""
    child = os.fork()
    if child == 0:
        left, watched = position, (str(folder), "/sys/fs/cgroup")

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(KILLED)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in EVENTS and (event == "subprocess.Popen" or str(arguments[0]).startswith(watched)):
                count()

        def around(call: Callable[..., None], *arguments: Any) -> None:
            count()
            call(*arguments)
            count()

        for name in ("mount", "unmount"):
            setattr(kernel, name, partial(around, getattr(kernel, name)))
        sys.addaudithook(hook)
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - the child must not return into the parent's program
            print(f"child failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"child ended with {code}"
    return code == KILLED


def crash_in_start_then_adopt(node: Supervisors, position: int) -> bool:
    killed = killed_at(position, node.lab.root, lambda: node.start(node.group))
    found = node.adopt()
    if GROUP in found:
        assert found[GROUP].state is GroupState.READY
        node.stop(GROUP)
    assert node.left() == []
    node.start(node.group)
    node.stop(GROUP)
    assert node.left() == []
    return killed


def crash_in_start_then_stop(node: Supervisors, position: int) -> bool:
    killed = killed_at(position, node.lab.root, lambda: node.start(node.group))
    node.stop(GROUP)
    assert node.left() == []
    return killed


def crash_in_stop_then_adopt(node: Supervisors, position: int) -> bool:
    node.start(node.group)
    killed = killed_at(position, node.lab.root, lambda: node.stop(GROUP))
    if GROUP in node.adopt():  # it was killed before it had begun
        node.stop(GROUP)
    assert node.left() == []
    return killed


def crash_in_adoption(node: Supervisors, position: int) -> bool:
    """A kill in the middle of the take-over that follows a kill."""
    killed_at(MIDDLE_OF_START, node.lab.root, lambda: node.start(node.group))
    killed = killed_at(position, node.lab.root, node.adopt)
    assert set(node.adopt()) == {BYSTANDER}
    assert node.left() == []
    return killed


def crash_in_put_then_adopt(node: Supervisors, position: int) -> bool:
    killed = killed_at(position, node.lab.root, node.put)
    assert node.adopt()[GROUP].state is GroupState.READY
    node.mend()
    node.has_the_share()
    node.put()
    assert node.has_the_share()
    node.remove()
    assert not node.has_the_share()
    return killed


def crash_in_put_then_remove(node: Supervisors, position: int) -> bool:
    killed = killed_at(position, node.lab.root, node.put)
    node.remove()
    assert not node.has_the_share()
    return killed


def crash_in_remove_then_adopt(node: Supervisors, position: int) -> bool:
    node.put()
    killed = killed_at(position, node.lab.root, node.remove)
    assert node.adopt()[GROUP].state is GroupState.READY
    node.mend()
    if node.has_the_share():  # it was killed before it had begun
        node.remove()
    assert not node.has_the_share()
    return killed


def crash_in_mending(node: Supervisors, position: int) -> bool:
    node.put()
    node.lab.mps_control("namespace", "delete", node.share.name, "--server=gpus", group_id=GROUP)
    killed = killed_at(position, node.lab.root, node.mend)
    assert node.adopt()[GROUP].state is GroupState.READY
    node.mend()
    assert node.has_the_share()
    node.remove()
    return killed


def crash_in_restart_then_adopt(node: Supervisors, position: int) -> bool:
    """A daemon that is started anew with a share, as one that is recycled."""
    node.put()
    killed = killed_at(position, node.lab.root, lambda: node.start(node.group))
    found = node.adopt()[GROUP]
    assert [each.share for each in found.shares] == [node.share]
    node.start(node.group)
    assert node.has_the_share()
    node.remove()
    return killed


MIDDLE_OF_START = 24
SCENARIOS: dict[str, Callable[[Supervisors, int], bool]] = {
    "start-adopt": crash_in_start_then_adopt,
    "start-stop": crash_in_start_then_stop,
    "stop-adopt": crash_in_stop_then_adopt,
    "adoption": crash_in_adoption,
}


# Of a group of protocol 3 that runs meanwhile.
WITH_SHARES: dict[str, Callable[[Supervisors, int], bool]] = {
    "put-adopt": crash_in_put_then_adopt,
    "put-remove": crash_in_put_then_remove,
    "remove-adopt": crash_in_remove_then_adopt,
    "mending": crash_in_mending,
    "restart-adopt": crash_in_restart_then_adopt,
}


def sweep(scenario: str, folder: Path, stride: int) -> int:
    """How many kills there were until the operation got through."""
    has_shares = scenario in WITH_SHARES
    lab = Lab(folder, driver=NAMED_DRIVER) if has_shares else Lab(folder)
    try:
        lab.folder.mkdir(parents=True)
        node = Supervisors(lab, has_shares=has_shares)
        node.start(lab.group(BYSTANDER, gpu=1))
        client = lab.counting(BYSTANDER)
        if has_shares:
            node.start(node.group)
        position = 1
        while {**SCENARIOS, **WITH_SHARES}[scenario](node, position):
            position += stride
        client.still_counts()
        if has_shares:
            node.stop(GROUP)
            assert node.left() == []
        return position // stride
    finally:
        lab.close()


def main(arguments: Sequence[str]) -> None:
    scenario, folder, stride = arguments
    print(sweep(scenario, Path(folder), int(stride)))


if __name__ == "__main__":
    main(sys.argv[1:])
