"""What CDI says so that a share's containers are fenced: our own hook, or the container toolkit's. Pure.

Our hook verifies, remembers what it has set, and takes different limits on different GPUs. The toolkit's
(apply-cuda-memory-limits, toolkit 1.20.1; NVIDIA/nvidia-container-toolkit#2075) needs nothing of ours on the host, but
takes one pair of values from the container's environment, in MiB, for all GPUs of the container, and lets a container
run without limits when it cannot read the container's configuration (its #2103). Nothing is remembered of it, so a soft
limit stays reserved when the container ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dra_driver.cdi.hooks import HookProgram
from dra_driver.cdi.spec import ContainerEdits, Hook
from dra_driver.errors import UnsupportedConfig
from kubelet_plugin.memory_fence.hook import WAIT_SECONDS
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName

_STAGE: Final = (
    "createRuntime"  # in the runtime's namespaces, when the container's cgroup is there and nothing runs in it
)
_SHELL: Final = "/bin/sh"
_TIMEOUT_SECONDS: Final = WAIT_SECONDS + 10  # the hook's own sentence is better than the runtime's
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class OwnHook:
    """``script``: :func:`~kubelet_plugin.memory_fence.hook.install`'s, as the host sees it."""

    script: Path


@dataclass(frozen=True, slots=True)
class ToolkitHook:
    """``driver_root``: the host's folder in which the driver is installed."""

    program: HookProgram
    driver_root: str = "/"


def edits_for(share: ShareName, limits: Sequence[ShareLimit], way: OwnHook | ToolkitHook) -> ContainerEdits:
    """The hook, and the environment that it reads.

    Raises UnsupportedConfig when the toolkit's hook cannot do it. That all GPUs of a *container* have the same limits,
    those of its other claims too, the caller must know: the last variables win for all of them.
    """
    if isinstance(way, OwnHook):
        arguments = ("sh", str(way.script), share.claim_uid, share.key)
        return ContainerEdits(hooks=(Hook(_STAGE, _SHELL, arguments, timeout=_TIMEOUT_SECONDS),))
    return _toolkits(share, limits, way)


def _toolkits(share: ShareName, limits: Sequence[ShareLimit], way: ToolkitHook) -> ContainerEdits:
    if not way.program.memory_limits:
        raise UnsupportedConfig(
            f"{way.program.path} has no hook for memory limits",
            hint="update nvidia-container-toolkit to 1.20.1 or newer",
        )
    values = {(each.soft, each.hard) for each in limits}
    if len(values) != 1:
        raise UnsupportedConfig(
            f"{share} has {len(values)} different limits, and the toolkit's hook sets one for all GPUs of a container",
            hint="use the driver's own hook",
        )
    soft, hard = values.pop()
    if soft % _MIB or hard % _MIB:
        raise UnsupportedConfig(f"limits of {share} are no whole MiB, which the toolkit's hook takes")
    gpus = [word for each in limits for word in ("--gpu-id", each.gpu_uuid)]
    arguments = (*way.program.arguments, "apply-cuda-memory-limits", "--driver-root", way.driver_root, *gpus)
    return ContainerEdits(
        env=(f"NVIDIA_GPU_MEMORY_REQUEST={soft // _MIB}", f"NVIDIA_GPU_MEMORY_LIMIT={hard // _MIB}"),
        hooks=(Hook(_STAGE, way.program.path, arguments, ("NVIDIA_CTK_DEBUG=false",), _TIMEOUT_SECONDS),),
    )
