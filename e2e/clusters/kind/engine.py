"""Where kind, docker and whatever looks at a node are run: beside the user's Docker, or beside a daemon of our own."""

from __future__ import annotations

from pathlib import Path

from e2e.clusters.runner import Runner


def users_docker() -> Runner | None:
    """The Docker that the user's own settings lead to, if it answers."""
    engine = Runner()
    return engine if engine.succeeds(["docker", "info"], timeout=15) else None


def daemon_engine(pid: int, socket: Path, configuration: Path) -> Runner:
    """Beside the daemon of our own whose namespaces ``pid`` is in. kind publishes ports on that network's 127.0.0.1.

    nsenter and not `ip netns exec`, which mounts a /sys without the cgroups."""
    proxies = {
        name: None for word in ("http_proxy", "https_proxy", "no_proxy", "all_proxy") for name in (word, word.upper())
    }
    return Runner(
        ("nsenter", f"--net=/proc/{pid}/ns/net", "--"),
        {
            **proxies,
            "DOCKER_HOST": f"unix://{socket}",
            "DOCKER_CONFIG": str(configuration),
            "DOCKER_CONTEXT": None,
            "DOCKER_TLS_VERIFY": None,
            "DOCKER_BUILDKIT": "0",  # the builder inside the daemon; BuildKit's client is a package of its own
            "KIND_EXPERIMENTAL_PROVIDER": None,
            "KIND_EXPERIMENTAL_DOCKER_NETWORK": None,
        },
    )
