"""Genuine kind: with the user's Docker and the released node image, or with a daemon and an image of our own."""

from __future__ import annotations

from e2e.clusters.kind.session import session

__all__ = ["session"]
