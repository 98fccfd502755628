"""What CDI says for our own hook and for the toolkit's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.cdi.hooks import MEMORY_LIMITS, HookFinder, HookPlace, HookProgram
from dra_driver.cdi.roots import Root
from dra_driver.cdi.spec import ContainerEdits, Device, Hook, Spec, check
from dra_driver.errors import UnsupportedConfig
from kubelet_plugin.memory_fence import hook
from kubelet_plugin.memory_fence.edits import OwnHook, ToolkitHook, edits_for
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName

MIB = 1 << 20
SHARE = ShareName("u1", "gpu-0-7f")
OWN = OwnHook(Path("/var/lib/kubelet/plugins/gpu.nvidia.com/memory-fence/hook"))
TOOLKIT = ToolkitHook(HookProgram("/usr/bin/nvidia-cdi-hook", memory_limits=True), "/run/nvidia/driver")


def limit(gpu: str, hard: int, soft: int = 0) -> ShareLimit:
    return ShareLimit(gpu, soft, hard)


def test_our_hook_is_told_the_share_and_has_time_to_say_why() -> None:
    edits = edits_for(SHARE, [limit("GPU-1", 5), limit("GPU-2", 7)], OWN)
    (found,) = edits.hooks
    assert found == Hook("createRuntime", "/bin/sh", ("sh", str(OWN.script), "u1", "gpu-0-7f"), (), found.timeout)
    assert found.timeout is not None
    assert found.timeout > hook.WAIT_SECONDS
    assert edits == ContainerEdits(hooks=(found,))
    check(Spec("vendor.com/class", (Device("d", edits),)))


def test_the_toolkits_hook_is_told_the_gpus_and_reads_mib() -> None:
    edits = edits_for(SHARE, [limit("GPU-1", 4096 * MIB, 1024 * MIB), limit("GPU-2", 4096 * MIB, 1024 * MIB)], TOOLKIT)
    assert edits.env == ("NVIDIA_GPU_MEMORY_REQUEST=1024", "NVIDIA_GPU_MEMORY_LIMIT=4096")
    (found,) = edits.hooks
    assert (found.name, found.path) == ("createRuntime", "/usr/bin/nvidia-cdi-hook")
    assert " ".join(found.args) == (
        "nvidia-cdi-hook apply-cuda-memory-limits --driver-root /run/nvidia/driver --gpu-id GPU-1 --gpu-id GPU-2"
    )


@pytest.mark.parametrize(
    ("limits", "way", "said"),
    [
        ([limit("GPU-1", MIB), limit("GPU-2", 2 * MIB)], TOOLKIT, "has 2 different limits"),
        ([], TOOLKIT, "has 0 different limits"),
        ([limit("GPU-1", MIB + 1)], TOOLKIT, "no whole MiB"),
        ([limit("GPU-1", MIB)], ToolkitHook(HookProgram("/usr/bin/nvidia-cdi-hook")), "has no hook for memory limits"),
    ],
)
def test_what_the_toolkits_hook_cannot_do_is_refused(limits: list[ShareLimit], way: ToolkitHook, said: str) -> None:
    with pytest.raises(UnsupportedConfig, match=said):
        edits_for(SHARE, limits, way)


@pytest.mark.parametrize("has_it", [True, False])
def test_whether_a_toolkit_has_the_hook_is_seen_in_its_program(tmp_path: Path, has_it: bool) -> None:
    program = tmp_path / "usr/bin/nvidia-cdi-hook"
    program.parent.mkdir(parents=True)
    filler = b"\0" * ((1 << 20) - 10)  # the name lies across two reads
    program.write_bytes(b"#!/bin/sh\n" + filler[10:] + (MEMORY_LIMITS.encode() if has_it else b"") + filler)
    program.chmod(0o755)
    found = HookFinder([HookPlace(Root(tmp_path, "/"), "/usr/bin/nvidia-cdi-hook")], "x86_64").find()
    assert found is not None
    assert (found.memory_limits, found.application_profile) == (has_it, False)
