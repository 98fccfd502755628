"""The Kubernetes REST protocol over an ``EmbeddedApi``: a request in, an answer or a watch out.

Pure routing: no sockets. Paths and query parameters follow the API conventions of Kubernetes; what a request means is
decided by ``EmbeddedApi``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import yaml

from dra_driver.kube.interface import PODS, ApiError, Obj, PatchType, Preconditions, Resource
from dra_driver.kube.statuses import bad_request, status_from_error, success, unknown_resource
from dra_driver.simulation.apiserver.discovery import document
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.simulation.store.watching import Watch
from dra_driver.yaml_loader import SAFE_LOADER

_CREATED = 201
_METHOD_NOT_ALLOWED, _UNSUPPORTED = 405, 415
_DEFAULT_WATCH_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """``content`` is a JSON value, or a plain text for the health endpoints."""

    code: int
    content: Any


@dataclass(frozen=True, slots=True)
class _Target:
    """What a path names: a resource, perhaps an object, perhaps its subresource."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str


class Rest:
    """Stateless; thread-safe as the API is."""

    def __init__(self, api: EmbeddedApi) -> None:
        self._api = api

    def handle(self, request: Request) -> Answer | Watch:
        """Errors become answers; a watch is for the caller to enter, send and leave."""
        try:
            found = document(self._api, request.path)
            if found is not None:
                return Answer(200, found)
            return self._route(request, self._target(request.path))
        except ApiError as error:
            return error_answer(error)

    def _target(self, path: str) -> _Target:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) >= 3:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) >= 4:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise unknown_resource()
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = self._api.find_resource(group, version, rest[0])
        if len(rest) > 3 or (namespace is not None and not resource.namespaced):
            raise unknown_resource()
        name, subresource = (*rest[1:], "", "")[:2]
        return _Target(resource, namespace, name, subresource)

    def _route(self, request: Request, target: _Target) -> Answer | Watch:
        match request.method, bool(target.name):
            case "GET", False:
                return self._watch(request, target) if _flag(request, "watch") else self._list(request, target)
            case "GET", True:
                return self._get(target)
            case "POST", _:
                return self._post(request, target)
            case "PUT", True:
                return self._put(request, target)
            case "PATCH", True:
                return self._patch(request, target)
            case "DELETE", True:
                return self._delete(request, target)
            case "DELETE", False:
                return self._delete_collection(request, target)
        raise ApiError(
            "the server does not allow this method on the requested resource",
            code=_METHOD_NOT_ALLOWED,
            reason="MethodNotAllowed",
        )

    def _get(self, target: _Target) -> Answer:
        if target.subresource and not (target.subresource == "status" and target.resource.has_status):
            raise unknown_resource()
        return Answer(200, self._api.get(target.resource, target.name, target.namespace))

    def _list(self, request: Request, target: _Target) -> Answer:
        page = self._api.list(
            target.resource,
            target.namespace,
            label_selector=request.query.get("labelSelector", ""),
            field_selector=request.query.get("fieldSelector", ""),
            limit=_number(request, "limit"),
            continue_token=request.query.get("continue", ""),
            resource_version=request.query.get("resourceVersion", ""),
        )
        metadata: Obj = {"resourceVersion": page.resource_version}
        if page.continue_token:
            metadata["continue"] = page.continue_token
        return Answer(
            200,
            {
                "kind": f"{target.resource.kind}List",
                "apiVersion": target.resource.api_version,
                "metadata": metadata,
                "items": page.items,
            },
        )

    def _watch(self, request: Request, target: _Target) -> Watch:
        return self._api.watch(
            target.resource,
            target.namespace,
            resource_version=request.query.get("resourceVersion", ""),
            label_selector=request.query.get("labelSelector", ""),
            field_selector=request.query.get("fieldSelector", ""),
            timeout_seconds=_number(request, "timeoutSeconds") or _DEFAULT_WATCH_SECONDS,
            initial_events=_flag(request, "sendInitialEvents"),
            bookmarks=_flag(request, "allowWatchBookmarks"),
        )

    def _post(self, request: Request, target: _Target) -> Answer:
        body = _object(request)
        if target.resource == PODS and target.subresource == "binding":
            node = (body.get("target") or {}).get("name")
            if not node:
                raise bad_request("a binding needs target.name, the node")
            self._api.bind(target.name, target.namespace or "", node)
            return Answer(_CREATED, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        if target.name:
            raise unknown_resource()
        return Answer(_CREATED, self._api.create(target.resource, _placed(target, body), dry_run=_dry_run(request)))

    def _put(self, request: Request, target: _Target) -> Answer:
        body = _placed(target, _object(request))
        name = body["metadata"].setdefault("name", target.name)
        if name != target.name:
            raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
        return Answer(
            200,
            self._api.update(target.resource, body, subresource=target.subresource, dry_run=_dry_run(request)),
        )

    def _patch(self, request: Request, target: _Target) -> Answer:
        try:
            patch_type = PatchType(request.content_type.partition(";")[0].strip())
        except ValueError:
            raise ApiError(
                f"the body of the request was in an unknown format - accepted media types include: "
                f"{', '.join(PatchType)}",
                code=_UNSUPPORTED,
                reason="UnsupportedMediaType",
            ) from None
        return Answer(
            200,
            self._api.patch(
                target.resource,
                target.name,
                _decoded(request),
                target.namespace,
                patch_type=patch_type,
                subresource=target.subresource,
                field_manager=request.query.get("fieldManager", ""),
                force=_flag(request, "force"),
                dry_run=_dry_run(request),
            ),
        )

    def _delete(self, request: Request, target: _Target) -> Answer:
        if target.subresource:
            raise unknown_resource()
        options = _object(request) if request.body else {}
        held = options.get("preconditions") or {}
        grace = options.get("gracePeriodSeconds")
        if grace is None and "gracePeriodSeconds" in request.query:
            grace = _number(request, "gracePeriodSeconds")
        last = self._api.delete_returning(
            target.resource,
            target.name,
            target.namespace,
            preconditions=Preconditions(held.get("uid"), held.get("resourceVersion")) if held else None,
            grace_period_seconds=grace,
            dry_run=_dry_run(request) or bool(options.get("dryRun")),
        )
        leaving = "deletionTimestamp" in last["metadata"]
        return Answer(200, last if leaving else success(target.resource, last))

    def _delete_collection(self, request: Request, target: _Target) -> Answer:
        self._api.delete_collection(
            target.resource,
            target.namespace,
            label_selector=request.query.get("labelSelector", ""),
            field_selector=request.query.get("fieldSelector", ""),
        )
        return Answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})


def error_answer(error: ApiError) -> Answer:
    return Answer(error.code or 500, status_from_error(error))


def _decoded(request: Request) -> Any:
    if "protobuf" in request.content_type:
        raise ApiError(
            "this server speaks JSON and YAML, not protobuf: use kubectl apply -f instead of kubectl create",
            code=_UNSUPPORTED,
            reason="UnsupportedMediaType",
        )
    try:
        if "yaml" in request.content_type:
            return yaml.load(request.body, Loader=SAFE_LOADER)  # noqa: S506 - both loaders are safe ones
        return json.loads(request.body)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body of the request cannot be decoded: {error}") from error


def _object(request: Request) -> Obj:
    body = _decoded(request)
    if not isinstance(body, dict) or not isinstance(body.setdefault("metadata", {}) or {}, dict):
        raise bad_request("the body of the request is not an API object")
    body["metadata"] = body["metadata"] or {}
    return body


def _placed(target: _Target, body: Obj) -> Obj:
    """The body with the namespace of the path, which its own must equal."""
    if target.resource.namespaced:
        if target.namespace is None:
            raise ApiError(
                "the server does not allow this method on the requested resource",
                code=_METHOD_NOT_ALLOWED,
                reason="MethodNotAllowed",
            )
        given = body["metadata"].setdefault("namespace", target.namespace)
        if given != target.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    return body


def _flag(request: Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


def _number(request: Request, name: str) -> int:
    text = request.query.get(name, "")
    if not text:
        return 0
    if not text.lstrip("-").isdigit():
        raise bad_request(f"the query parameter {name}={text!r} is not a number")
    return int(text)


def _dry_run(request: Request) -> bool:
    given = request.query.get("dryRun")
    if given not in (None, "", "All"):
        raise bad_request(f"dryRun={given!r} is not supported: the only value is All")
    return given == "All"
