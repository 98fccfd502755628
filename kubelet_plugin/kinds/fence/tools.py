"""What puts up fences: one tool for each backend, and the runner that chooses by what a step says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from api.fractions import SharingBackend
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.errors import StateError
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.kinds.fence.step import FenceShare, recorded_fence
from kubelet_plugin.prepare.kind import StepRunner

_MIB = 1024**2


class FenceTool(Protocol):
    """Of one backend. Each method may be called again after a crash in the middle of it."""

    def up(self, fence: FenceShare) -> bool:
        """Whether the fence is there, with just these limits. Raises ``DriverError`` where that cannot be told."""
        ...

    def put_up(self, fence: FenceShare) -> None:
        """Returns when the limits were read back. Raises ``DriverError``."""
        ...

    def take_down(self, fence: FenceShare) -> None:
        """Nothing to take down is success. Raises ``DriverError``."""
        ...

    def edits(self, fence: FenceShare) -> ContainerEdits: ...

    def trouble(self, fence: FenceShare) -> str:
        """What is known to be wrong with it, without asking; empty for nothing. That a group's daemon is not well, its
        group tells (``kinds.mps``)."""
        return ""


class ClientVariables(FenceTool):
    """Limits that an MPS client takes from its environment: nothing is on the node but the share's MPS group.

    Names and forms: NVIDIA's MPS documentation, "Environment Variables". The device is named by its UUID: an ordinal
    would be another device in a container with several, and one that a client does not see drops all its limits. CDI
    edits go over what a pod's spec sets, but a process may still change its own environment.
    """

    def up(self, fence: FenceShare) -> bool:
        return True

    def put_up(self, fence: FenceShare) -> None:
        """Nothing to do."""

    def take_down(self, fence: FenceShare) -> None:
        """Nothing to do."""

    def edits(self, fence: FenceShare) -> ContainerEdits:
        ceiling = (f"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={fence.compute}",) if fence.compute else ()
        return ContainerEdits(env=(*limit_variables(fence), *ceiling))


def limit_variables(fence: FenceShare) -> tuple[str, ...]:
    """What a client takes over whatever its server says, and may not say otherwise in a pod's spec."""
    memory = f"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT={fence.uuid}={fence.memory_limit // _MIB}M"
    return (memory, "CUDA_MPS_CLIENT_PRIORITY=1") if fence.low_priority else (memory,)


class NoFence(FenceTool):
    """For claims that accept none."""

    def up(self, fence: FenceShare) -> bool:
        return True

    def put_up(self, fence: FenceShare) -> None:
        """Nothing to do."""

    def take_down(self, fence: FenceShare) -> None:
        """Nothing to do."""

    def edits(self, fence: FenceShare) -> ContainerEdits:
        return ContainerEdits()


FenceTools = Mapping[SharingBackend, FenceTool]


class FenceRunner(StepRunner):
    do_needs_intent = True
    undo_needs_intent = True  # or a restart between the end of a fence and of its record would put it up once more
    survives_reboot = False

    def __init__(self, tools: FenceTools) -> None:
        self._tools = tools

    def observe(self, step: FenceShare, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        return {} if tool_of(self._tools, step).up(step) else None

    def do(self, step: FenceShare, done: Sequence[StepRecord]) -> Mapping[str, str]:
        tool_of(self._tools, step).put_up(step)
        return {}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        fence = recorded_fence(record)
        tool_of(self._tools, fence).take_down(fence)


def tool_of(tools: FenceTools, fence: FenceShare) -> FenceTool:
    tool = tools.get(fence.backend)
    if tool is None:
        raise StateError(
            f"share {fence.share_id} of {fence.device} is fenced by {fence.backend}, which this process cannot do",
            hint="run the version that prepared the claim until it is unprepared",
        )
    return tool
