"""How kind, docker and whatever looks at a node are run: beside the user's Docker, or beside a daemon of our own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from e2e.clusters.interface import ClusterError

_SHOWN = 4000


@dataclass(frozen=True, slots=True)
class Engine:
    """``prefix`` is put before each command (it enters a namespace); ``environment`` is added, None removes."""

    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = 60.0,
        text: str | None = None,
        stdin: IO[bytes] | None = None,
    ) -> str:
        """Its standard output. Raises ClusterError with both outputs when it fails or takes longer than ``timeout``."""
        try:
            result = subprocess.run(
                [*self.prefix, *command],
                stdin=stdin if stdin is not None else (None if text is not None else subprocess.DEVNULL),
                input=text.encode() if text is not None else None,
                capture_output=True,
                env=self.full_environment(),
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{_named(command)} took longer than {timeout:.0f} s{_tail(error.stderr)}") from error
        except FileNotFoundError as error:
            raise ClusterError(f"{command[0]} is not installed") from error
        if result.returncode != 0:
            outputs = _tail(result.stdout) + _tail(result.stderr)
            raise ClusterError(f"{_named(command)} failed with {result.returncode}{outputs}")
        return result.stdout.decode(errors="replace")

    def succeeds(self, command: Sequence[str], *, timeout: float = 60.0) -> bool:
        """Whether it ends with 0; its outputs are nobody's concern."""
        try:
            self.run(command, timeout=timeout)
        except ClusterError:
            return False
        return True

    def replace_process(self, command: Sequence[str]) -> None:
        """Become the command; for people who type at it."""
        whole = [*self.prefix, *command]
        try:
            os.execvpe(whole[0], whole, self.full_environment())  # noqa: S606
        except FileNotFoundError as error:
            raise ClusterError(f"{whole[0]} is not installed") from error

    def full_environment(self) -> dict[str, str]:
        merged: dict[str, str | None] = {**os.environ, **self.environment}
        return {name: value for name, value in merged.items() if value is not None}


def users_docker() -> Engine | None:
    """The Docker that the user's own settings lead to, if it answers."""
    engine = Engine()
    return engine if engine.succeeds(["docker", "info"], timeout=15) else None


def daemon_engine(pid: int, socket: Path, configuration: Path) -> Engine:
    """Beside the daemon of our own whose namespaces ``pid`` is in. kind publishes ports on that network's 127.0.0.1.

    nsenter and not `ip netns exec`, which mounts a /sys without the cgroups."""
    proxies = {
        name: None for word in ("http_proxy", "https_proxy", "no_proxy", "all_proxy") for name in (word, word.upper())
    }
    return Engine(
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


def _named(command: Sequence[str]) -> str:
    text = " ".join([Path(command[0]).name, *command[1:]])
    return text if len(text) < 160 else f"{text[:160]} ..."


def _tail(output: bytes | None) -> str:
    text = (output or b"").decode(errors="replace").strip()
    return f"\n{text[-_SHOWN:]}" if text else ""
