"""What a driver costs that has nothing to do, and what it publishes."""

from __future__ import annotations

from e2e.bench_peer import comparison
from e2e.bench_peer.processes import rss_mib
from e2e.bench_peer.serving import Serving

_SECONDS = 10.0
ALL = "plugin + controller"


def idle(serving: Serving) -> None:
    """Memory and processor time of some time without work."""
    plugin, everything = serving.idle_ms_per_s(_SECONDS)
    rss(serving, f"idle {_SECONDS:g} s")
    serving.add("CPU idle, plugin", "ms/s", plugin)
    serving.add(f"CPU idle, {ALL}", "ms/s", everything)


def rss(serving: Serving, when: str) -> None:
    serving.add(f"RSS plugin, {when}", "MiB", serving.plugin.rss_mib())
    serving.add(f"RSS {ALL}, {when}", "MiB", rss_mib(serving.everything))


def publication(serving: Serving) -> None:
    serving.show(f"slices, {serving.setting.devices}", comparison.published(serving.slices.slices.values()))
