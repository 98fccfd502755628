"""The local copy of a watched resource: a thread-safe store of raw objects with named indexes.

Objects in it are shared by all readers and must not be modified; copy one before you change it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from dra_driver.kube.interface import Obj

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""

IndexFunction = Callable[[Obj], Iterable[str]]
"""The values under which an object is found in one index."""


def key_of(obj: Obj) -> Key:
    """The key of ``obj``. Raises KeyError or TypeError when it has no metadata.name."""
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class Store:
    """Written by one reflector, read by anybody."""

    def __init__(self, indexes: Mapping[str, IndexFunction] | None = None) -> None:
        self._lock = threading.Lock()
        self._objects: dict[Key, Obj] = {}
        self._functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[Key, None]]] = {name: {} for name in self._functions}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, name: str, namespace: str = "") -> Obj | None:
        with self._lock:
            return self._objects.get((namespace, name))

    def objects(self) -> list[Obj]:
        with self._lock:
            return list(self._objects.values())

    def by_index(self, index: str, value: str) -> list[Obj]:
        """Objects that the index function ``index`` put under ``value``. Raises KeyError for an unknown index."""
        with self._lock:
            return [self._objects[key] for key in self._indexes[index].get(value, ())]

    def index_values(self, index: str) -> list[str]:
        """All values of one index that have an object."""
        with self._lock:
            return list(self._indexes[index])

    def put(self, obj: Obj) -> Obj | None:
        """Add or replace ``obj``; returns what it replaced."""
        key = key_of(obj)
        with self._lock:
            old = self._objects.get(key)
            self._set(key, old, obj)
            return old

    def remove(self, key: Key) -> Obj | None:
        """Remove the object; returns it when it was there."""
        with self._lock:
            old = self._objects.get(key)
            if old is not None:
                self._set(key, old, None)
            return old

    def replace(self, objects: Iterable[Obj]) -> list[tuple[Obj | None, Obj | None]]:
        """Make the store hold exactly ``objects``; returns the changes as (old, new), removals first.

        An object with the resourceVersion that is stored already is no change.
        """
        fresh = {key_of(obj): obj for obj in objects}
        changes: list[tuple[Obj | None, Obj | None]] = []
        with self._lock:
            for key in [key for key in self._objects if key not in fresh]:
                old = self._objects[key]
                self._set(key, old, None)
                changes.append((old, None))
            for key, obj in fresh.items():
                previous = self._objects.get(key)
                if previous is not None and same_version(previous, obj):
                    continue
                self._set(key, previous, obj)
                changes.append((previous, obj))
        return changes

    def _set(self, key: Key, old: Obj | None, new: Obj | None) -> None:
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(old) if old is not None else ():
                keys = index.get(value)
                if keys is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]
            for value in function(new) if new is not None else ():
                index.setdefault(value, {})[key] = None
        if new is None:
            del self._objects[key]
        else:
            self._objects[key] = new


def same_version(left: Obj, right: Obj) -> bool:
    """Whether both are the same version of the same object (and say so: an object without versions never is)."""
    ours, theirs = left["metadata"], right["metadata"]
    version = ours.get("resourceVersion")
    return bool(version) and version == theirs.get("resourceVersion") and ours.get("uid") == theirs.get("uid")
