"""Objects, versions and the bounded history of changes: what etcd and the watch cache are to the real server.

Holds no rule about what may be written: the caller prepares and validates, then calls ``put`` or ``remove`` with the
lock held. Stored objects are never changed in place, so that readers and watchers may share them.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from dra_driver.kube.interface import EventType, Obj, Resource

TypeKey = tuple[str, str]  # group, plural
ObjectKey = tuple[str, str]  # namespace ("" for cluster-scoped), name


def type_key(resource: Resource) -> TypeKey:
    return resource.group, resource.plural


def object_key(obj: Obj) -> ObjectKey:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


@dataclass(frozen=True, slots=True)
class Change:
    """One write. ``object`` carries the version of the change, also when it was removed by it."""

    version: int
    type: EventType
    object: Obj
    previous: Obj | None


@dataclass(slots=True)
class _Table:
    changed: threading.Condition
    objects: dict[ObjectKey, Obj] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    forgotten: int = 0  # version of the newest change that is no longer in history


class Store:
    """Every method that reads or writes needs ``lock``, which is re-entrant; ``wait`` gives it up while it waits."""

    def __init__(self, history: int) -> None:
        self.lock = threading.RLock()
        self.version = 1
        self._history = history
        self._tables: dict[TypeKey, _Table] = {}
        self._by_uid: dict[str, tuple[TypeKey, ObjectKey]] = {}
        self._dependants: dict[str, set[tuple[TypeKey, ObjectKey]]] = {}

    def _table(self, kind: TypeKey) -> _Table:
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _Table(threading.Condition(self.lock))
        return table

    def find(self, kind: TypeKey, key: ObjectKey) -> Obj | None:
        return self._table(kind).objects.get(key)

    def has_uid(self, uid: str) -> bool:
        return uid in self._by_uid

    def dependants(self, owner_uid: str) -> list[tuple[TypeKey, Obj]]:
        """The objects that name this uid in an ownerReference, in a stable order."""
        found = sorted(self._dependants.get(owner_uid, ()))
        return [(kind, self._tables[kind].objects[key]) for kind, key in found]

    def select(self, kind: TypeKey, namespace: str | None) -> list[Obj]:
        """In the order of the real server's keys: by namespace, then by name."""
        objects = self._table(kind).objects
        return [objects[key] for key in sorted(objects) if namespace is None or key[0] == namespace]

    def kinds_in(self, namespace: str) -> Iterator[tuple[TypeKey, Obj]]:
        """Every object of a namespace."""
        for kind, table in list(self._tables.items()):
            for key in sorted(table.objects):
                if key[0] == namespace:
                    yield kind, table.objects[key]

    def put(self, kind: TypeKey, obj: Obj) -> Obj:
        """Store ``obj``, which now belongs to the store, under the next version."""
        table, key = self._table(kind), object_key(obj)
        previous = table.objects.get(key)
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        if previous is not None:
            self._unlink(kind, key, previous)
        table.objects[key] = obj
        self._link(kind, key, obj)
        self._record(table, EventType.MODIFIED if previous else EventType.ADDED, obj, previous)
        return obj

    def remove(self, kind: TypeKey, key: ObjectKey) -> Obj:
        """Remove an object that is there; the answer is its last state under the next version."""
        table = self._table(kind)
        previous = table.objects.pop(key)
        self._unlink(kind, key, previous)
        self.version += 1
        last = {**previous, "metadata": {**previous["metadata"], "resourceVersion": str(self.version)}}
        self._record(table, EventType.DELETED, last, previous)
        return last

    def _link(self, kind: TypeKey, key: ObjectKey, obj: Obj) -> None:
        self._by_uid[obj["metadata"]["uid"]] = (kind, key)
        for owner in obj["metadata"].get("ownerReferences") or []:
            self._dependants.setdefault(owner["uid"], set()).add((kind, key))

    def _unlink(self, kind: TypeKey, key: ObjectKey, obj: Obj) -> None:
        self._by_uid.pop(obj["metadata"]["uid"], None)
        for owner in obj["metadata"].get("ownerReferences") or []:
            names = self._dependants.get(owner["uid"], set())
            names.discard((kind, key))
            if not names:
                self._dependants.pop(owner["uid"], None)

    def _record(self, table: _Table, event: EventType, obj: Obj, previous: Obj | None) -> None:
        table.history.append(Change(self.version, event, obj, previous))
        if len(table.history) >= 2 * self._history:  # halving, so that a write costs no shift of the list
            self._forget(table, len(table.history) - self._history)
        table.changed.notify_all()

    @staticmethod
    def _forget(table: _Table, count: int) -> None:
        if count:
            table.forgotten = table.history[count - 1].version
            del table.history[:count]

    def compact(self) -> None:
        """Forget the whole history: every watch from before now ends as too old."""
        for table in self._tables.values():
            self._forget(table, len(table.history))

    def oldest(self, kind: TypeKey) -> int:
        """A watch may start after this version, not after an older one."""
        return self._table(kind).forgotten

    def changes_after(self, kind: TypeKey, version: int) -> list[Change]:
        history = self._table(kind).history
        return history[bisect_right(history, version, key=attrgetter("version")) :]

    def wait(self, kind: TypeKey, seconds: float) -> None:
        """Until something of this kind changes or ``wake`` is called, at most ``seconds``."""
        self._table(kind).changed.wait(seconds)

    def wake(self, kind: TypeKey) -> None:
        self._table(kind).changed.notify_all()
