"""What was asked of the embedded API: a count of write requests, and a hook that sees every request.

Tests prove "0 API writes" with it. A refused write is counted too, a dry run is not: it changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One request. ``code`` is 0 for success, else the HTTP status of the error; ``resource`` is the plural name."""

    verb: str  # get, list, watch, create, update, patch, delete, deletecollection
    resource: str
    namespace: str
    name: str
    subresource: str = ""
    dry_run: bool = False
    code: int = 0


AuditHook = Callable[[AuditEntry], None]


class Audit:
    """Thread-safe. The hook runs on the caller's thread, after the request, without any lock held."""

    def __init__(self, hook: AuditHook | None) -> None:
        self._hook = hook
        self._lock = threading.Lock()
        self._writes: Counter[tuple[str, str]] = Counter()

    def record(self, entry: AuditEntry) -> None:
        if entry.verb in WRITE_VERBS and not entry.dry_run:
            with self._lock:
                self._writes[(entry.verb, entry.resource)] += 1
        if self._hook is not None:
            self._hook(entry)

    def writes(self) -> Counter[tuple[str, str]]:
        """Write requests so far, by (verb, plural)."""
        with self._lock:
            return Counter(self._writes)
