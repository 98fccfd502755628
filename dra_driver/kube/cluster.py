"""ClusterApi: ``KubeApi`` over HTTP. Paths, options and bodies here; connections in ``cluster_transport``.

``connect`` builds one from a kubeconfig or a service account.
"""

from __future__ import annotations

from dra_driver.kube.cluster_transport import Transport
from dra_driver.kube.cluster_watch import ClusterWatch
from dra_driver.kube.interface import JsonPatch, ListPage, Obj, PatchType, Preconditions, Resource
from dra_driver.kube.resources import collection_path, object_path
from dra_driver.kube.statuses import bad_request

DEFAULT_TIMEOUT = 30.0
_SILENCE_MARGIN = 40.0  # a watch that the server should have ended this long ago is dead


class ClusterApi:
    """Thread-safe. Every call ends within about ``timeout`` seconds without an answer."""

    def __init__(self, transport: Transport, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._transport = transport
        self._timeout = timeout

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        """End idle connections."""
        self._transport.close()

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        return self._transport.request("GET", _path(resource, name, namespace), timeout=self._timeout)

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
    ) -> ListPage:
        query = _selection(label_selector, field_selector)
        if limit:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        elif resource_version:
            query["resourceVersion"] = resource_version
        answer = self._transport.request(
            "GET", collection_path(resource, namespace), query=query, timeout=self._timeout
        )
        items: list[Obj] = answer.get("items") or []
        for item in items:  # the server leaves these out of the items of a list
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        metadata = answer.get("metadata") or {}
        return ListPage(items, metadata.get("resourceVersion", ""), metadata.get("continue", ""))

    def create(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        namespace = (obj.get("metadata") or {}).get("namespace")
        if resource.namespaced and not namespace:
            raise bad_request("an empty namespace may not be set during creation")
        return self._transport.request(
            "POST",
            collection_path(resource, namespace),
            query=_dry(dry_run),
            body=_typed(resource, obj),
            timeout=self._timeout,
        )

    def update(self, resource: Resource, obj: Obj, *, subresource: str = "", dry_run: bool = False) -> Obj:
        metadata = obj.get("metadata") or {}
        return self._transport.request(
            "PUT",
            _path(resource, metadata.get("name") or "", metadata.get("namespace"), subresource),
            query=_dry(dry_run),
            body=_typed(resource, obj),
            timeout=self._timeout,
        )

    def patch(
        self,
        resource: Resource,
        name: str,
        patch: Obj | JsonPatch,
        namespace: str | None = None,
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        query = _dry(dry_run)
        if field_manager:
            query["fieldManager"] = field_manager
        body: object = patch
        if patch_type is PatchType.APPLY and isinstance(patch, dict):
            query["force"] = "true" if force else "false"
            named = {"name": name, **(patch.get("metadata") or {})}  # the server does not take it from the path
            body = _typed(resource, {**patch, "metadata": named})
        return self._transport.request(
            "PATCH",
            _path(resource, name, namespace, subresource),
            query=query,
            body=body,
            content_type=patch_type.value,
            timeout=self._timeout,
        )

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if preconditions is not None:
            held = {"uid": preconditions.uid, "resourceVersion": preconditions.resource_version}
            options["preconditions"] = {key: value for key, value in held.items() if value}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        self._transport.request("DELETE", _path(resource, name, namespace), body=options, timeout=self._timeout)

    def delete_collection(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> None:
        query = _selection(label_selector, field_selector)
        self._transport.request("DELETE", collection_path(resource, namespace), query=query, timeout=self._timeout)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 290,
    ) -> ClusterWatch:
        path = collection_path(resource, namespace)
        query = {
            **_selection(label_selector, field_selector),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        return ClusterWatch(
            lambda: self._transport.stream(
                path, query=query, timeout=self._timeout, silence=timeout_seconds + _SILENCE_MARGIN
            ),
            f"watch {path}",
        )


def _path(resource: Resource, name: str, namespace: str | None, subresource: str = "") -> str:
    if not name:
        raise bad_request("the request names no object: metadata.name is empty")
    if resource.namespaced and not namespace:
        raise bad_request(f"{resource.plural} live in namespaces, and the request names none")
    return object_path(resource, name, namespace, subresource)


def _selection(label_selector: str, field_selector: str) -> dict[str, str]:
    chosen = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in chosen.items() if value}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _typed(resource: Resource, obj: Obj) -> Obj:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
