"""Our hooks, run by the real nvidia-cdi-hook as a runtime runs them: the container's state on standard input."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import Hook
from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.state_file import create_state
from e2e.clusters import programs

pytestmark = pytest.mark.process


@pytest.fixture(scope="session")
def program() -> Path:
    built = programs.find(programs.CDI_HOOK)
    if built is None:
        pytest.skip(f"no real nvidia-cdi-hook: {programs.CDI_HOOK.target} is not built (make programs)")
    return built / "nvidia-cdi-hook"


@pytest.fixture
def hooks(program: Path, tmp_path: Path) -> tuple[Hook, ...]:
    """Those of a whole simulated node's driver."""
    version = create_state("h100-sxm5-80gb", tmp_path / "state.json").machine.hardware.driver_version
    root = tmp_path / "host"
    host_root.build(root, tmp_path / "state.json")
    roots = DriverRoots(Root(root, str(root)), sysfs=root / "sys")
    return DriverEdits(roots, [HookPlace(Root(Path("/")), str(program))], architecture="x86_64").common(version).hooks


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """An OCI bundle with an empty root file system."""
    folder = tmp_path / "bundle"
    for name in ("rootfs/etc", "rootfs/tmp", "rootfs/usr/lib/x86_64-linux-gnu"):
        (folder / name).mkdir(parents=True)
    config = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sh"]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(hook: Hook, bundle: Path) -> subprocess.CompletedProcess[str]:
    state = {"ociVersion": "1.2.0", "id": "test", "status": "creating", "pid": os.getpid(), "bundle": str(bundle)}
    return subprocess.run(
        [hook.path, *hook.args[1:]], input=json.dumps(state), capture_output=True, text=True, check=False, timeout=30
    )


def named(hooks: tuple[Hook, ...], name: str) -> list[Hook]:
    return [hook for hook in hooks if hook.args[1] == name]


def test_every_hook_of_ours_is_one_that_it_knows(hooks: tuple[Hook, ...]) -> None:
    assert {hook.args[1] for hook in hooks} >= {"create-symlinks", "update-ldcache", "enable-cuda-compat"}
    assert hooks[-1].args[1] == "update-application-profile", "the pinned toolkit is a 1.20"
    for hook in hooks:
        shown = subprocess.run([hook.path, hook.args[1], "--help"], capture_output=True, text=True, check=True).stdout
        for flag in (argument for argument in hook.args[2:] if argument.startswith("--")):
            assert flag.split("=")[0] in shown, f"{hook.args[1]} has no {flag}"


def test_links_are_made_in_the_containers_root(hooks: tuple[Hook, ...], bundle: Path) -> None:
    links = named(hooks, "create-symlinks")
    assert links
    for hook in links:
        done = run(hook, bundle)
        assert done.returncode == 0, done.stderr
        wanted = [argument for argument in hook.args if "::" in argument]
        assert wanted
        for argument in wanted:
            target, _, link = argument.removeprefix("--link=").partition("::")
            assert os.readlink(bundle / "rootfs" / link.lstrip("/")) == target


def test_it_refuses_a_flag_that_it_does_not_know(hooks: tuple[Hook, ...], bundle: Path) -> None:
    """So that a hook of ours that is wrong fails here and not in a container."""
    hook = named(hooks, "create-symlinks")[0]
    wrong = Hook(hook.name, hook.path, (*hook.args, "--no-such-flag"))
    assert run(wrong, bundle).returncode != 0
