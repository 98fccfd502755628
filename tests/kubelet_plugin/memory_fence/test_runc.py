"""The hook with the real runc, as CDI's edits make it run; and the toolkit's real hook with the edits for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.cdi.hooks import HookFinder, HookPlace
from dra_driver.cdi.roots import Root
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.hardware.cgroups import CgroupHierarchy
from e2e.clusters import programs
from kubelet_plugin.memory_fence import hook
from kubelet_plugin.memory_fence.edits import OwnHook, ToolkitHook, edits_for
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName
from tests.cgroup_tree import DRIVER, GIB, V2
from tests.kubelet_plugin.memory_fence.lab import Lab
from tests.simulated_node import NodeMaker

pytestmark = pytest.mark.process

RUNC, BUSYBOX = shutil.which("runc"), shutil.which("busybox")
V1_MEMORY = Path("/sys/fs/cgroup/memory")
TOP = f"gpu-dra-test-runc-{os.getpid()}"

needs_runc = pytest.mark.skipif(
    os.geteuid() != 0 or RUNC is None or BUSYBOX is None or not (V2 or V1_MEMORY.is_dir()),
    reason="containers need root, runc, busybox and cgroups",
)


def hierarchy() -> CgroupHierarchy:
    """As a local cluster takes it: a hierarchy of v1 stands in where there is one."""
    if (V1_MEMORY / "cgroup.procs").exists():
        return CgroupHierarchy(V1_MEMORY, "memory")
    assert V2 is not None
    return CgroupHierarchy(V2)


class Runc:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.containers: list[str] = []

    def create(self, name: str, edits: ContainerEdits) -> subprocess.CompletedProcess[str]:
        bundle = self.folder / f"bundle-{name}"
        (bundle / "rootfs/bin").mkdir(parents=True)
        shutil.copy(BUSYBOX or "", bundle / "rootfs/bin/busybox")
        subprocess.run([RUNC or "", "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["/bin/busybox", "sleep", "600"]}
        config["linux"]["cgroupsPath"] = f"/{TOP}/pod1/{name}"
        hooks: dict[str, list[dict[str, object]]] = {}
        for each in edits.hooks:
            hooks.setdefault(each.name, []).append(
                {"path": each.path, "args": list(each.args), "env": list(each.env), "timeout": each.timeout}
            )
        config["hooks"] = hooks
        (bundle / "config.json").write_text(json.dumps(config))
        self.containers.append(name)
        # Not through pipes: the container's first process has them too, and waits to be started.
        with (bundle / "out").open("w") as out:
            done = subprocess.run(
                self._command("create", "--bundle", str(bundle), name),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60,
            )  # fmt: skip
        return subprocess.CompletedProcess(done.args, done.returncode, (bundle / "out").read_text(), "")

    def delete(self, name: str) -> None:
        subprocess.run(self._command("delete", "--force", name), check=False, capture_output=True, timeout=60)

    def close(self) -> None:
        for name in self.containers:
            self.delete(name)
        for top in Path("/sys/fs/cgroup").glob(f"**/{TOP}"):
            for folder, _folders, _files in os.walk(top, topdown=False):
                os.rmdir(folder)

    def _command(self, *arguments: str) -> list[str]:
        return [RUNC or "", "--root", str(self.folder / "state"), *arguments]


@pytest.fixture
def runc(tmp_path: Path) -> Iterator[Runc]:
    made = Runc(tmp_path / "runc")
    made.folder.mkdir()
    yield made
    made.close()


@pytest.fixture
def lab(make_node: NodeMaker, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path, make_node("h100-sxm5-80gb", driver=DRIVER).state_file, hierarchy())
    made.proc = Path("/proc")
    yield made
    made.close()


@pytest.mark.root
@needs_runc
def test_runc_makes_a_container_whose_own_cgroup_is_limited(lab: Lab, runc: Runc) -> None:
    lab.serve()
    share = lab.prepare(gpu0=(5, 10), gpu1=(0, 20))
    edits = edits_for(share, lab.shares.limits[share.claim_uid, share.key], OwnHook(lab.plugin / hook.FILE))
    started = time.monotonic()
    done = runc.create("c1", edits)
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - started < 10
    top = lab.hierarchy.root / TOP
    for gpu, wanted in ((0, (5, 10)), (1, (0, 20))):
        found = lab.limits.get(lab.gpus[gpu], top / "pod1/c1")
        assert found is not None
        assert (found.soft // GIB, found.hard // GIB) == wanted
    assert lab.keeper().check() == ()
    runc.delete("c1")
    assert not (top / "pod1/c1").exists(), "the runtime has removed it"
    found = lab.limits.get(lab.gpus[0], top)
    assert found is not None
    assert found.soft == 5 * GIB, "and the driver has kept the reservation"
    if lab.hierarchy.stands_in:  # else the kernel's own dmem controller would have to be there
        lab.unprepare(share)
        assert lab.left() == []


@pytest.mark.root
@needs_runc
def test_runc_makes_none_that_is_refused_and_says_why(lab: Lab, runc: Runc) -> None:
    lab.serve()
    share = ShareName("u1", "gone")
    done = runc.create("c1", edits_for(share, (), OwnHook(lab.plugin / hook.FILE)))
    assert done.returncode != 0
    assert "share gone of claim u1 is not prepared on this node" in done.stdout
    assert not (runc.folder / "state/c1").exists()
    assert not (lab.hierarchy.root / TOP / "pod1/c1").exists()


def test_the_toolkits_real_hook_takes_what_the_edits_say(tmp_path: Path) -> None:
    built = programs.find(programs.CDI_HOOK)
    if built is None:
        pytest.skip(f"no real nvidia-cdi-hook: {programs.CDI_HOOK.target} is not built (make programs)")
    finder = HookFinder([HookPlace(Root(Path("/")), str(built / "nvidia-cdi-hook"))], os.uname().machine)
    program = finder.find()
    assert program is not None
    assert program.memory_limits
    edits = edits_for(ShareName("u1", "a"), [ShareLimit("GPU-1", GIB, 2 * GIB)], ToolkitHook(program, str(tmp_path)))
    (found,) = edits.hooks

    def run(*env: str) -> subprocess.CompletedProcess[str]:
        config = {"ociVersion": "1.2.0", "process": {"cwd": "/", "args": ["sh"], "env": list(env)}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        state = {"ociVersion": "1.2.0", "id": "c", "status": "creating", "pid": os.getpid(), "bundle": str(tmp_path)}
        return subprocess.run(
            [found.path, *found.args[1:]], input=json.dumps(state), capture_output=True, text=True, timeout=30
        )

    assert run().returncode == 0, "a container that asks for nothing"
    done = run(*edits.env)
    assert done.returncode != 0
    # How far it comes here: there is no driver, and perhaps no cgroup v2.
    assert any(word in done.stderr for word in ("only supported in cgroup v2", "libnvidia-ml.so.1")), done.stderr
