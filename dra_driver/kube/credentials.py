"""How requests prove who sends them: tokens given, tokens in files that are replaced, and the official client's logins.

Relies on nothing of ours but errors. Each credential gives the headers of one request, so that a token renewed on disk
or by an exec plugin is used from the next request on.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dra_driver.errors import ConfigError

_TOKEN_FILE_SECONDS = 60.0  # as client-go: the kubelet replaces a projected token well before it ends


class Credentials(Protocol):
    """``headers`` is called for every request, from any thread; ``forget`` after the server answered 401."""

    def headers(self) -> dict[str, str]: ...

    def forget(self) -> None: ...


class FixedHeaders:
    """Credentials that never change: none at all, a token, a user name with password."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    @classmethod
    def none(cls) -> FixedHeaders:
        return cls({})

    @classmethod
    def token(cls, token: str) -> FixedHeaders:
        return cls({"Authorization": f"Bearer {token}"})

    @classmethod
    def basic(cls, user: str, password: str) -> FixedHeaders:
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        return cls({"Authorization": f"Basic {encoded}"})

    def headers(self) -> dict[str, str]:
        return self._headers

    def forget(self) -> None:
        """Nothing newer can be had."""


class TokenFile:
    """A token in a file, read again when the last reading is older than a minute, or was refused."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._headers: dict[str, str] = {}
        self._read_at: float | None = None

    def headers(self) -> dict[str, str]:
        """Raises ConfigError when the file cannot be read and no token was ever read from it."""
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at > _TOKEN_FILE_SECONDS:
                try:
                    token = self._path.read_text().strip()
                except OSError as error:
                    if not self._headers:
                        raise ConfigError(
                            f"cannot read the token file {self._path}: {error.strerror}",
                            hint="mount a service account token there, or name another kubeconfig",
                        ) from error
                else:
                    self._headers = {"Authorization": f"Bearer {token}"} if token else self._headers
                self._read_at = now
            return self._headers

    def forget(self) -> None:
        with self._lock:
            self._read_at = None


class RefreshedHeaders:
    """Headers from a function that renews its login by itself when it is about to end (exec plugins, OIDC)."""

    def __init__(self, current: Callable[[], str | None]) -> None:
        """``current`` gives the value of the Authorization header; it is never called by two threads at a time."""
        self._current = current
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        with self._lock:
            value = self._current()
        return {"Authorization": value} if value else {}

    def forget(self) -> None:
        """The function knows when its login ends."""
