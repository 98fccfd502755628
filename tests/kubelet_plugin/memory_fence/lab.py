"""A node with fences: simulated GPUs, a plain tree of cgroups, and containers that are lines in a /proc of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dra_driver.hardware.cgroups import CgroupHierarchy, inode
from dra_driver.hardware.nvml.memory_limits import GpuMemoryLimits
from dra_driver.simulation.hardware import StateFile
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from kubelet_plugin.memory_fence import hook
from kubelet_plugin.memory_fence.applied import Node
from kubelet_plugin.memory_fence.container import Container
from kubelet_plugin.memory_fence.keeper import Keeper
from kubelet_plugin.memory_fence.server import FenceServer
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName
from kubelet_plugin.prepare.locks import NamedLocks
from tests.cgroup_tree import GIB, made, remove
from tests.run_guard import mark

Answer = tuple[int, str]
CLAIM, SHARE = "11111111-2222-3333-4444-555555555555", "gpu-0-7f"


class PreparedShares:
    """What a kind would know."""

    def __init__(self) -> None:
        self.limits: dict[tuple[str, str], tuple[ShareLimit, ...]] = {}

    def limits_of(self, claim_uid: str, share_key: str) -> Sequence[ShareLimit] | None:
        return self.limits.get((claim_uid, share_key))


class Lab:
    def __init__(self, folder: Path, state_file: Path, hierarchy: CgroupHierarchy) -> None:
        self.folder = folder
        self.plugin = folder / "plugin"
        self.records = self.plugin / "records"
        self.proc = folder / "proc"
        self.state_file = state_file
        self.hierarchy = hierarchy
        self.shares = PreparedShares()
        self.boot = "this-boot"
        self.limits = GpuMemoryLimits(hierarchy)
        use_hierarchy(state_file, hierarchy)
        self.gpus = [gpu.uuid for gpu in StateFile(state_file).read().gpus]
        self.servers: list[FenceServer] = []
        self._pid = 4000

    def prepare(self, key: str = SHARE, claim: str = CLAIM, **gib: tuple[int, int]) -> ShareName:
        """``gpu0=(soft, hard)`` in GiB."""
        limits = (ShareLimit(self.gpus[int(name[3:])], soft * GIB, hard * GIB) for name, (soft, hard) in gib.items())
        self.shares.limits[claim, key] = tuple(limits)
        return ShareName(claim, key)

    def unprepare(self, share: ShareName) -> None:
        """As a kind would: clear, then forget."""
        self.keeper().clear(share.claim_uid, share.key)
        del self.shares.limits[share.claim_uid, share.key]

    def keeper(self) -> Keeper:
        """A new one remembers nothing, as a new process does."""
        self.plugin.mkdir(parents=True, exist_ok=True)
        node = Node(self.limits, self.hierarchy, lambda: self.boot, self.proc)
        keeper = Keeper(self.records, node, self.shares, NamedLocks(self.plugin / "locks"))
        keeper.start()
        return keeper

    def serve(self, *, wait_seconds: int = 10) -> FenceServer:
        server = FenceServer(self.plugin, self.keeper(), wait_seconds=wait_seconds)
        server.start()
        self.servers.append(server)
        return server

    def container(self, name: str = "c1", *, pod: str = "pod1") -> Container:
        """As the runtime has made it when it runs the hooks."""
        cgroup = made(self.hierarchy, f"kubepods.slice/{pod}.slice/cri-containerd-{name}.scope")
        self._pid += 1
        self.move(self._pid, f"0::/{cgroup.relative_to(self.hierarchy.root)}\n")
        return Container(name, self._pid)

    def move(self, pid: int, cgroup: str, *, started: int = 100, state: str = "S") -> None:
        folder = self.proc / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup").write_text(cgroup)
        (folder / "stat").write_text(f"{pid} (runc:[2:INIT] x) {state} {'0 ' * 18}{started} 0\n")

    def cgroup(self, container: Container) -> Path:
        return next(self.hierarchy.root.rglob(f"cri-containerd-{container.id}.scope"))

    def end(self, container: Container) -> None:
        """As the runtime does, without a word to us."""
        remove(self.cgroup(container))
        for file in (self.proc / str(container.pid)).iterdir():
            file.unlink()
        (self.proc / str(container.pid)).rmdir()

    def run_hook(self, share: ShareName, container: Container, *, shell: Sequence[str] = ("/bin/sh",)) -> Answer:
        process = self.start_hook(share, container, shell=shell)
        _, err = process.communicate(timeout=60)
        return process.returncode, err

    def start_hook(
        self,
        share: ShareName,
        container: Container,
        *,
        shell: Sequence[str] = ("/bin/sh",),
        state: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """With no environment, as runtimes run hooks."""
        process = subprocess.Popen(
            [*shell, str(self.plugin / hook.FILE), share.claim_uid, share.key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**mark(), **(environment or {})},
        )
        assert process.stdin is not None
        process.stdin.write(oci_state(container) if state is None else state)
        process.stdin.close()
        process.stdin = None
        return process

    def fence_of(self, container: Container, gpu: int = 0) -> tuple[int, int | None]:
        """Soft and hard limit in GiB; (0, None) without any."""
        found = self.limits.get(self.gpus[gpu], self.cgroup(container))
        assert found is not None
        return found.soft // GIB, found.hard // GIB if found.limited else None

    def reserved(self, gpu: int = 0) -> int:
        """GiB that are guaranteed altogether."""
        found = self.limits.get(self.gpus[gpu], self.hierarchy.root / "kubepods.slice")
        return found.soft // GIB if found else 0

    def left(self) -> list[str]:
        """What there is of limits, on cgroups that are there, and of records."""
        state = StateFile(self.state_file).read()
        limits = [
            f"{each.cgroup} {each.soft} {each.hard}"
            for gpu in state.gpus
            for each in gpu.memory_limits
            if inode(Path(each.cgroup)) == each.inode
        ]
        return limits + sorted(each.name for each in self.records.iterdir())

    def close(self) -> None:
        for server in self.servers:
            server.stop()


def oci_state(container: Container) -> str:
    """As runc writes it (runtime-spec, State), on more than one line as it may be."""
    state = {"ociVersion": "1.2.0", "id": container.id, "status": "creating", "pid": container.pid, "bundle": "/b"}
    return json.dumps(state, indent=1)
