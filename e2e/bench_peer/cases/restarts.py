"""What restarts cost: of the plugin, and of the kubelet, which deletes all slices of its node when it starts."""

from __future__ import annotations

import time
from collections.abc import Callable

from e2e.bench_peer.serving import PATIENCE, Serving
from e2e.clusters.interface import ClusterError

_QUIET_SECONDS = 3.0  # a second wipe, or a late write, comes sooner
_KUBELET_SECONDS = 150.0
_POLL_SECONDS = 0.005
# pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go
_REGISTERED = '"Registered DRA plugin"'


def plugin(serving: Serving) -> None:
    """The plugin ends and starts at once, on unchanged hardware. The processes besides stay."""
    node, writes = serving.run.node, serving.slices.writes
    node.stop(serving.plugin.name)
    known = node.kubelet_log.stat().st_size
    began = time.monotonic()
    serving.start_plugin()
    _wait(lambda: _REGISTERED in _new_text(serving, known), "the kubelet has not registered the plugin")
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


def _new_text(serving: Serving, known: int) -> str:
    with serving.run.node.kubelet_log.open(errors="replace") as log:
        log.seek(known)
        return log.read()


def _wait(look: Callable[[], bool], problem: str) -> None:
    until = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > until:
            raise ClusterError(f"after {PATIENCE:g} s {problem}")
        time.sleep(_POLL_SECONDS)
