"""How a program is run for its output, and what is said when it fails: here, inside a machine, in another network."""

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
class Runner:
    """``prefix`` is put before each command (it enters a namespace); ``environment`` is added, None removes; ``where``
    is put before the command's name in errors ("node-0")."""

    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    where: str = ""

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
            raise ClusterError(
                f"{self._named(command)} took longer than {timeout:.0f} s{_tail(error.stderr)}"
            ) from error
        except FileNotFoundError as error:
            raise ClusterError(f"{command[0]} is not installed") from error
        if result.returncode != 0:
            outputs = _tail(result.stdout) + _tail(result.stderr)
            raise ClusterError(f"{self._named(command)} failed with {result.returncode}{outputs}")
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

    def _named(self, command: Sequence[str]) -> str:
        text = " ".join([Path(command[0]).name, *command[1:]])
        text = text if len(text) < 160 else f"{text[:160]} ..."
        return f"{self.where}: {text}" if self.where else text


def _tail(output: bytes | None) -> str:
    text = (output or b"").decode(errors="replace").strip()
    return f"\n{text[-_SHOWN:]}" if text else ""
