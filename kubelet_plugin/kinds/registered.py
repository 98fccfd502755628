"""Which kinds and wrappers there are, what they need of a node, and how each is built from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from api.driver_spec import DriverSpec
from api.fractions import SharingBackend
from dra_driver.hardware.nvidia_smi import SmiObserver
from dra_driver.hardware.nvml import MigControl
from dra_driver.mps.client import SupervisorClient
from dra_driver.mps.group import socket_of
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.hardware.setup import build_capabilities, build_compute_policy
from kubelet_plugin.hardware.time_slices import TimeSliceHardware
from kubelet_plugin.kinds.fence.cgroups import CgroupFences, CgroupLimits
from kubelet_plugin.kinds.fence.kind import Fences
from kubelet_plugin.kinds.fence.namespaces import NamespaceLimits
from kubelet_plugin.kinds.fence.tools import ClientVariables, FenceTools, NoFence
from kubelet_plugin.kinds.fractions import FractionFences, NodeFences
from kubelet_plugin.kinds.mig.capabilities import CapabilityReader
from kubelet_plugin.kinds.mig.kind import MigDevices, MigEdits
from kubelet_plugin.kinds.mig.refused import RefusedPlacements
from kubelet_plugin.kinds.mps.kind import Mps
from kubelet_plugin.kinds.mps.states import GroupStates
from kubelet_plugin.kinds.mps.supervisor import Supervisor
from kubelet_plugin.kinds.replicas import OneShareToARequest
from kubelet_plugin.kinds.sharing import SharingInForce
from kubelet_plugin.kinds.time_slice import TimeSlices
from kubelet_plugin.kinds.whole import GpuEdits, WholeGpus
from kubelet_plugin.prepare.kind import Kind, Wrapper
from kubelet_plugin.prepare.kinds import Kinds


class Edits(GpuEdits, MigEdits, Protocol):
    """What containers need of GPUs (``dra_driver.cdi.edits.DriverEdits``)."""


@dataclass(frozen=True, slots=True)
class NodeTools:
    """What a node has for its kinds: hardware functions, files, policy. ``plugin_folder``: the plugin's own, below the
    kubelet's plugins directory."""

    policy: NodePolicy
    edits: Edits
    mig: MigHardware
    capabilities: CapabilityReader
    refused: RefusedPlacements
    time_slices: TimeSliceHardware
    supervisor: Supervisor
    mps_states: GroupStates
    sharing: SharingInForce
    fences: NodeFences
    cgroup_fences: CgroupFences
    plugin_folder: Path


def tools_of(
    spec: DriverSpec,
    policy: NodePolicy,
    edits: Edits,
    sharing: SharingInForce,
    fences: NodeFences,
    cgroup_fences: CgroupFences,
    smi_calls: SmiObserver,
) -> NodeTools:
    """Those of a real node, or of a simulated one. What needs NVML works once the hardware is started."""
    plugin_folder = spec.kubelet.plugins_directory / spec.driver_name
    return NodeTools(
        policy=policy,
        edits=edits,
        mig=MigControl(),
        capabilities=build_capabilities(spec),
        refused=RefusedPlacements(),
        time_slices=build_compute_policy(spec, smi_calls),
        supervisor=SupervisorClient(
            socket_of(plugin_folder),
            start_seconds=spec.mps.start_timeout,
            # A stop waits for a start of the same group, which it ends, then for clients.
            stop_seconds=spec.mps.start_timeout + spec.mps.drain_timeout,
        ),
        mps_states=GroupStates(),
        sharing=sharing,
        fences=fences,
        cgroup_fences=cgroup_fences,
        plugin_folder=plugin_folder,
    )


# In the order of their steps in a claim: a GPU's MIG mode goes off before another one's instances are made.
KINDS: Final[tuple[Callable[[NodeTools], Kind], ...]] = (
    lambda tools: WholeGpus(tools.mig, tools.edits, tools.policy),
    lambda tools: MigDevices(tools.mig, tools.capabilities, tools.refused, tools.edits, tools.policy),
)
# Ways of sharing, put around devices of these kinds.
WRAPPERS: Final[tuple[Callable[[NodeTools], Wrapper], ...]] = (
    lambda tools: OneShareToARequest(tools.sharing, tools.policy),
    lambda tools: TimeSlices(tools.time_slices),
    lambda tools: Mps(
        tools.supervisor,
        tools.mps_states,
        tools.sharing,
        tools.mig,
        tools.policy,
        tools.plugin_folder,
        _fraction_fences(tools),
    ),
    lambda tools: Fences(_fraction_fences(tools), _fence_tools(tools)),
)


def _fraction_fences(tools: NodeTools) -> FractionFences:
    return FractionFences(tools.sharing, tools.fences, tools.policy)


def _fence_tools(tools: NodeTools) -> FenceTools:
    return {
        SharingBackend.CGROUP: CgroupLimits(tools.cgroup_fences),
        SharingBackend.MPS_NAMESPACE: NamespaceLimits(tools.supervisor, tools.plugin_folder),
        SharingBackend.MPS: ClientVariables(),
        SharingBackend.NONE: NoFence(),
    }


def build_kinds(tools: NodeTools) -> Kinds:
    return Kinds([make(tools) for make in KINDS], [make(tools) for make in WRAPPERS])
