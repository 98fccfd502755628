"""LIST in pages: a continue token stands for the rest of one consistent answer, kept for a while.

The real server reads old versions from etcd; here the rest of the answer itself is kept (objects are shared, not
copied), for the newest tokens only. An older token answers 410 as one from before a compaction does.
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass

from dra_driver.kube.interface import Expired, Obj
from dra_driver.kube.statuses import bad_request

_KEPT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Page:
    """Shared objects: copy them before they leave."""

    items: list[Obj]
    version: str
    continue_token: str = ""
    remaining: int = 0


class Pager:
    """Not locked: the caller holds the store's lock."""

    def __init__(self) -> None:
        self._rests: OrderedDict[str, tuple[list[Obj], str]] = OrderedDict()
        self._count = 0

    def first(self, items: list[Obj], version: str, limit: int) -> Page:
        if limit <= 0 or len(items) <= limit:
            return Page(items, version)
        self._count += 1
        content = {"v": "meta.k8s.io/v1", "rv": int(version), "start": f"{self._count}"}
        token = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        rest = items[limit:]
        self._rests[token] = rest, version
        while len(self._rests) > _KEPT_TOKENS:
            self._rests.popitem(last=False)
        return Page(items[:limit], version, token, len(rest))

    def next(self, token: str, limit: int) -> Page:
        """Raises BadRequest for what never was a token and Expired for one that is no longer kept."""
        rest = self._rests.get(token)
        if rest is not None:
            return self.first(rest[0], rest[1], limit)
        try:
            json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except ValueError:
            raise bad_request(f"invalid continue token: {token!r} is not one that this server gave") from None
        raise Expired(
            "The provided continue parameter is too old to display a consistent list result. "
            "You must start a new list without the continue parameter.",
            reason="Expired",
        )

    def forget(self) -> None:
        self._rests.clear()
