"""Those who want to be told that something happened. One that raises is logged and keeps no other from being told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

logger = logging.getLogger(__name__)

P = ParamSpec("P")


class Listeners(Generic[P]):
    """Listeners to ``what``, told in the order in which they came. They run on the teller's thread and must not block.

    ``on_error`` is called for each that raised, once that is logged.
    """

    def __init__(self, what: str, on_error: Callable[[], None] = lambda: None) -> None:
        self._what = what
        self._on_error = on_error
        self._listeners: list[Callable[P, None]] = []

    def add(self, listener: Callable[P, None]) -> None:
        self._listeners.append(listener)

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Never raises."""
        for listener in tuple(self._listeners):
            try:
                listener(*args, **kwargs)
            except Exception:
                # A listener is another component's code: its fault must not stop the teller, nor the other listeners.
                logger.exception("%s: a listener failed: %s", self._what, listener)
                self._on_error()
