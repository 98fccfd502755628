"""EmbeddedApi: the Kubernetes API in memory, with the semantics that drivers, kubelets and schedulers depend on.

It serves tests, the demo and ``simulation.apiserver``. Objects that enter and leave are copied; one lock covers a
request from its checks to its write, so requests are as atomic as the real server's. What is stored where is ``store``;
what a body becomes is ``wire``, ``features`` and ``schema``; the order of a write is ``writing``, its rules
``checking``; deletion is ``removal``; patches are ``patching`` and ``applying``.

Not here: authentication and authorization, admission plugins, conversion between versions, other kinds' validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from dra_driver.kube.interface import (
    NAMESPACES,
    PODS,
    ApiError,
    JsonPatch,
    ListPage,
    Obj,
    PatchType,
    Preconditions,
    Resource,
    Unavailable,
)
from dra_driver.kube.statuses import bad_request, conflict, not_found, unknown_resource
from dra_driver.simulation.store.audit import Audit, AuditEntry, AuditHook
from dra_driver.simulation.store.checking import Checks
from dra_driver.simulation.store.features import OFF_BY_DEFAULT
from dra_driver.simulation.store.paging import Page, Pager
from dra_driver.simulation.store.patching import clone
from dra_driver.simulation.store.registry import Registry, Served
from dra_driver.simulation.store.removal import PROTECTED_NAMESPACES, Remover
from dra_driver.simulation.store.selectors import compile_selectors
from dra_driver.simulation.store.store import ObjectKey, Store
from dra_driver.simulation.store.watching import Watch, Watches
from dra_driver.simulation.store.writing import Writer
from dra_driver.simulation.validation import ExpressionCheck

_HISTORY = 1024


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EmbeddedApi:
    """Implements ``KubeApi``; thread-safe; has no threads of its own."""

    def __init__(
        self,
        *,
        disabled_features: frozenset[str] = OFF_BY_DEFAULT,
        check_expression: ExpressionCheck | None = None,
        audit: AuditHook | None = None,
        now: Callable[[], datetime] = _utc_now,
        history: int = _HISTORY,
    ) -> None:
        """``disabled_features``: feature gates that are off (``features`` knows their fields); it replaces the default,
        so add to ``OFF_BY_DEFAULT`` to keep alpha features off. ``check_expression`` compiles CEL selectors.
        ``history``: changes kept per resource for watches that start in the past."""
        self._store = Store(history)
        self._registry = Registry()
        self._watches = Watches(self._store)
        self._pager = Pager()
        self._audit = Audit(audit)
        self._remover = Remover(self._store, self._registry, now)
        checks = Checks(self._store, check_expression)
        self._writer = Writer(self._store, self._registry, self._remover, now, checks, disabled_features)
        with self._store.lock:
            for name in sorted(PROTECTED_NAMESPACES):
                self._writer.create(self._registry.resolve(NAMESPACES), {"metadata": {"name": name}}, dry_run=False)

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        with self._audited("get", resource, namespace, name), self._store.lock:
            served = self._registry.resolve(resource)
            return _copy(self._find(served, name, namespace))

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
        with self._audited("list", resource, namespace, ""):
            with self._store.lock:
                page = self._page(
                    resource, namespace, label_selector, field_selector, limit, continue_token, resource_version
                )
            return ListPage([clone(item) for item in page.items], page.version, page.continue_token)

    def _page(
        self,
        resource: Resource,
        namespace: str | None,
        label_selector: str,
        field_selector: str,
        limit: int,
        continue_token: str,
        resource_version: str,
    ) -> Page:
        served = self._registry.resolve(resource)
        matcher = compile_selectors(resource, label_selector, field_selector)
        if continue_token:
            return self._pager.next(continue_token, limit)
        if _version(resource_version) > self._store.version:
            raise Unavailable(
                f"Timeout: Too large resource version: {resource_version}, current: {self._store.version}",
                code=504,
                reason="Timeout",
                details={"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]},
            )
        items = self._store.select(served.kind, namespace)
        if matcher is not None:
            items = [item for item in items if matcher(item)]
        return self._pager.first(items, str(self._store.version), limit)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: float = 290,
        initial_events: bool = False,
        bookmarks: bool = True,
    ) -> Watch:
        """Version "" or "0", or ``initial_events``, begins with what exists now, as ADDED events."""
        with self._audited("watch", resource, namespace, ""), self._store.lock:
            served = self._registry.resolve(resource)
            matcher = compile_selectors(resource, label_selector, field_selector)
            since = _version(resource_version)
            initial = None
            if initial_events or since == 0:
                items = self._store.select(served.kind, namespace)
                initial = [item for item in items if matcher is None or matcher(item)]
                since = self._store.version
            return Watch(
                self._store,
                self._watches,
                resource,
                namespace=namespace,
                matcher=matcher,
                since=since,
                timeout_seconds=timeout_seconds,
                initial=initial,
                bookmarks=bookmarks,
            )

    # -- writing ------------------------------------------------------------------------------------------------------

    def create(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        metadata = _metadata(obj)
        name = metadata.get("name") or ""
        with self._audited("create", resource, metadata.get("namespace"), name, "", dry_run), self._store.lock:
            served = self._registry.resolve(resource)
            return _copy(self._writer.create(served, clone(obj), dry_run=dry_run))

    def update(self, resource: Resource, obj: Obj, *, subresource: str = "", dry_run: bool = False) -> Obj:
        metadata = _metadata(obj)
        name, namespace = metadata.get("name") or "", metadata.get("namespace")
        with self._audited("update", resource, namespace, name, subresource, dry_run), self._store.lock:
            served = self._serve(resource, subresource)
            old = self._store.find(served.kind, _key(resource, name, namespace))
            if old is None and served.traits.creates_on_update and not subresource:
                metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
                return _copy(self._writer.create(served, {**clone(obj), "metadata": clone(metadata)}, dry_run=dry_run))
            old = self._find(served, name, namespace)
            return _copy(self._writer.update(served, old, clone(obj), subresource=subresource, dry_run=dry_run))

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
        with self._audited("patch", resource, namespace, name, subresource, dry_run), self._store.lock:
            served = self._serve(resource, subresource)
            key = _key(resource, name, namespace)
            if patch_type is PatchType.APPLY:
                return _copy(
                    self._writer.apply(
                        served,
                        key,
                        clone(patch),
                        manager=field_manager,
                        force=force,
                        subresource=subresource,
                        dry_run=dry_run,
                    )
                )
            old = self._find(served, name, namespace)
            return _copy(
                self._writer.patch(
                    served, old, patch, patch_type, manager=field_manager, subresource=subresource, dry_run=dry_run
                )
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
        self.delete_returning(
            resource, name, namespace, preconditions=preconditions, grace_period_seconds=grace_period_seconds
        )

    def delete_returning(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        grace_period_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Like ``delete``; gives the object's last state, or its present one when it is still being deleted."""
        with self._audited("delete", resource, namespace, name, "", dry_run), self._store.lock:
            served = self._registry.resolve(resource)
            obj = self._find(served, name, namespace)
            if dry_run:
                return _copy(obj)
            return _copy(self._remover.delete(served, obj, preconditions, grace_period_seconds))

    def delete_collection(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> None:
        with self._audited("deletecollection", resource, namespace, ""), self._store.lock:
            served = self._registry.resolve(resource)
            matcher = compile_selectors(resource, label_selector, field_selector)
            for obj in self._store.select(served.kind, namespace):
                present = self._store.find(served.kind, _key(resource, obj["metadata"]["name"], _namespace(obj)))
                if present is not None and (matcher is None or matcher(present)):
                    self._remover.delete(served, present, None, None)

    def bind(self, name: str, namespace: str, node_name: str) -> None:
        """The ``binding`` subresource of pods: what a scheduler does last. Raises Conflict when already bound."""
        with self._audited("create", PODS, namespace, name, "binding"), self._store.lock:
            served = self._registry.resolve(PODS)
            pod = self._find(served, name, namespace)
            bound_to = pod["spec"].get("nodeName")
            if bound_to:
                raise conflict(PODS, name, f'pod {name} is already assigned to node "{bound_to}"')
            if "deletionTimestamp" in pod["metadata"]:
                raise conflict(PODS, name, f"pod {name} is being deleted, cannot be assigned to a host")
            self._writer.bind(served, pod, node_name)

    # -- for tests and the server -------------------------------------------------------------------------------------

    def writes(self) -> Counter[tuple[str, str]]:
        """Write requests so far, dry runs left out: ``api.writes()[("update", "resourceslices")]``."""
        return self._audit.writes()

    def resources(self) -> tuple[Resource, ...]:
        with self._store.lock:
            return tuple(self._registry.all())

    def find_resource(self, group: str, version: str, plural: str) -> Resource:
        """Raises NotFound."""
        with self._store.lock:
            return self._registry.find(group, version, plural)

    def compact(self) -> None:
        """Forget history and continue tokens, as etcd's compaction does: older watches and pages answer 410."""
        with self._store.lock:
            self._store.compact()
            self._pager.forget()

    def close_watches(self) -> None:
        """End every open watch, as a server that shuts down does."""
        self._watches.close_all()

    @property
    def open_watches(self) -> int:
        return len(self._watches)

    # -- inside -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _audited(
        self,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Iterator[None]:
        code = 0
        try:
            yield
        except ApiError as error:
            code = error.code
            raise
        finally:
            self._audit.record(
                AuditEntry(verb, resource.plural, namespace or "", name, subresource, dry_run=dry_run, code=code)
            )

    def _serve(self, resource: Resource, subresource: str) -> Served:
        served = self._registry.resolve(resource)
        if subresource and not (subresource == "status" and served.resource.has_status):
            raise unknown_resource()
        return served

    def _find(self, served: Served, name: str, namespace: str | None) -> Obj:
        obj = self._store.find(served.kind, _key(served.resource, name, namespace))
        if obj is None:
            raise not_found(served.resource, name)
        return obj


def _copy(obj: Obj) -> Obj:
    copied: Obj = clone(obj)
    return copied


def _metadata(obj: Obj) -> Obj:
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _namespace(obj: Obj) -> str:
    return obj["metadata"].get("namespace") or ""


def _key(resource: Resource, name: str, namespace: str | None) -> ObjectKey:
    if not name:
        raise bad_request("the request names no object: metadata.name is empty")
    if not resource.namespaced:
        return "", name
    if not namespace:
        raise bad_request(f"{resource.plural} live in namespaces, and the request names none")
    return namespace, name


def _version(text: str) -> int:
    if not text:
        return 0
    if not text.isdigit():
        raise bad_request(f"invalid resource version {text!r}: it is not a number")
    return int(text)
