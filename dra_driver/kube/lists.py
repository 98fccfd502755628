"""Whole lists from the API server, for those who look once and do not watch."""

from __future__ import annotations

from dra_driver.kube.interface import KubeApi, Obj, Resource

_PAGE = 500


def list_all(api: KubeApi, resource: Resource, namespace: str | None = None) -> list[Obj]:
    """Every object, page by page. Raises ApiError."""
    found: list[Obj] = []
    token = ""
    while True:
        page = api.list(resource, namespace, limit=_PAGE, continue_token=token)
        found += page.items
        token = page.continue_token
        if not token:
            return found
