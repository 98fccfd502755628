"""The Kubernetes API as this project uses it: one Protocol, raw JSON dictionaries, one small tree of errors.

Two implementations exist, ``cluster`` (HTTP) and ``embedded`` (in memory); ``tests/contract`` runs the same cases on
both. Objects are plain dictionaries because generated models drop fields they do not know, and a ResourceSlice or a
ResourceClaim must survive a read-modify-write by an older driver. Objects returned belong to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

Obj = dict[str, Any]
JsonPatch = list[Obj]  # operations of RFC 6902


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource type of the API: ``Resource("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", False)``."""

    group: str  # "" is the core group
    version: str
    plural: str
    kind: str
    namespaced: bool
    has_status: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a LIST: ``continue_token`` is empty on the last page."""

    items: list[Obj]
    resource_version: str
    continue_token: str = ""


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch. An ERROR event is raised as :class:`ApiError` (410 as :class:`Expired`) instead."""

    type: EventType
    object: Obj = field(hash=False)


class PatchType(StrEnum):
    """Content types of PATCH."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"  # built-in kinds only
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """A delete that only happens to the very object that was seen."""

    uid: str | None = None
    resource_version: str | None = None


class ApiError(Exception):
    """The API server refused, or could not be asked. ``code`` is the HTTP status, 0 when there was no answer."""

    code = 0

    def __init__(self, message: str, *, code: int | None = None, reason: str = "", details: Obj | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.reason = reason
        self.details: Obj = details or {}


class BadRequest(ApiError):
    code = 400


class Unauthorized(ApiError):
    code = 401


class Forbidden(ApiError):
    code = 403


class NotFound(ApiError):
    code = 404


class Conflict(ApiError):
    """409: the resourceVersion or a precondition did not hold."""

    code = 409


class AlreadyExists(Conflict):
    """409 with reason AlreadyExists."""


class Expired(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""

    code = 410


class Invalid(ApiError):
    """422: validation failed; ``details["causes"]`` holds ``{"field", "reason", "message"}`` entries."""

    code = 422


class TooManyRequests(ApiError):
    code = 429


class Unavailable(ApiError):
    """No connection, a timeout, or a 5xx answer."""


class KubeApi(Protocol):
    """All calls are synchronous, bounded in time, and raise :class:`ApiError`. Implementations are thread-safe."""

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj: ...

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
        """One page; ``namespace=None`` lists all namespaces. ``resource_version="0"`` allows a cached answer."""
        ...

    def create(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        """The namespace is ``obj["metadata"]["namespace"]``."""
        ...

    def update(self, resource: Resource, obj: Obj, *, subresource: str = "", dry_run: bool = False) -> Obj: ...

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
    ) -> Obj: ...

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        grace_period_seconds: int | None = None,
    ) -> None: ...

    def delete_collection(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> None: ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 290,
    ) -> AbstractContextManager[Iterator[WatchEvent]]:
        """Events after ``resource_version``, bookmarks asked for. The iterator ends when the server closes the stream;
        leaving the context (also from another thread: ``close()`` on the manager where it has one) closes it."""
        ...


RESOURCE_SLICES = Resource("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)
RESOURCE_CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", namespaced=True, has_status=True)
RESOURCE_CLAIM_TEMPLATES = Resource(
    "resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate", namespaced=True
)
DEVICE_CLASSES = Resource("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False, has_status=True)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, has_status=True)
PODS = Resource("", "v1", "pods", "Pod", namespaced=True, has_status=True)
EVENTS = Resource("", "v1", "events", "Event", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    has_status=True,
)
NODE_INVENTORIES = Resource(
    "gpu-dra.dev", "v1alpha1", "nodeinventories", "NodeInventory", namespaced=False, has_status=True
)
