"""What restarts cost: of the plugin, and of the kubelet, which deletes all slices of its node when it starts."""

from __future__ import annotations

import time

from e2e.bench_peer.registrations import PATIENCE, any_moment
from e2e.bench_peer.serving import Serving
from e2e.clusters.interface import ClusterError

_QUIET_SECONDS = 3.0  # a second wipe, or a late write, comes sooner
_KUBELET_SECONDS = 150.0


def plugin(serving: Serving) -> None:
    """The plugin ends and starts at once, on unchanged hardware. The processes besides stay."""
    registrations, writes = serving.run.registrations, serving.slices.writes
    any_moment()
    registrations.look()
    known = registrations.count
    serving.run.node.stop(serving.plugin.name)
    began = time.monotonic()
    serving.start_plugin()
    registrations.wait_for_more(known)
    registered = time.monotonic() - began
    time.sleep(_QUIET_SECONDS)
    serving.add("slice writes of a plugin restart", "", serving.slices.writes - writes)
    serving.add("plugin start -> registered, at once after the old one", "s", registered)


def plugin_alone(serving: Serving) -> None:
    """From nothing again, but the processes besides are up. The peer has none."""
    if not serving.others:
        return
    node = serving.run.node
    node.stop(serving.plugin.name)
    node.forget()
    serving.run.registrations.wait_for_none()
    any_moment()
    began = time.monotonic()
    serving.start_plugin()
    whole = serving.slices.wait_whole(PATIENCE)
    case = f"plugin start -> slices visible, controller already up, {serving.setting.devices}"
    serving.add(case, "s", whole - began)


def kubelet(serving: Serving) -> None:
    """From the restart's command to the pool being whole again after the last wipe."""
    node, slices = serving.run.node, serving.slices
    known = slices.deletions
    began = time.monotonic()
    node.cluster.restart_kubelet(node.name)
    if not slices.wait_deletion(known, PATIENCE):
        raise ClusterError("the restarted kubelet has not deleted the node's slices")
    whole = slices.wait_whole(_KUBELET_SECONDS)
    while slices.wait_deletion(slices.deletions, _QUIET_SECONDS):
        whole = slices.wait_whole(_KUBELET_SECONDS)
    serving.add("kubelet restart -> slices back", "s", whole - began)
