"""The ConfigMap with the device plugin's configurations, as far as the API server shows it.

That one object is watched, and nothing waits for it: without the namespace, the object or the right to read it the
controller works on. Until it was listed for the first time nothing is known of it, and what is in force stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dra_driver.kube.interface import CONFIG_MAPS, ApiError, Forbidden, KubeApi, Obj
from dra_driver.kube.reflector import Reflector


@dataclass(frozen=True, slots=True)
class ObjectName:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PluginConfigSeen:
    """``where``: the ConfigMap, for people. ``data``: its content; None where there is no such object.

    ``forbidden``: that it may not be read, in the server's words; then ``data`` is what was last seen, if anything.
    """

    where: str
    data: Mapping[str, str] | None = field(default=None, hash=False)
    forbidden: str = ""


class PluginConfigSource:
    """The local copy, between start and stop; thread-safe."""

    def __init__(self, api: KubeApi, name: ObjectName, changed: Callable[[], None]) -> None:
        """``changed`` is called, on the reflector's thread, when :meth:`seen` may answer otherwise."""
        self._name = name
        self._changed = changed
        self._lock = threading.Lock()
        self._forbidden = ""
        self._answered = threading.Event()
        self.reflector = Reflector(
            api,
            CONFIG_MAPS,
            lambda _old, _new: changed(),
            namespace=name.namespace,
            # With this selector a right for one name is enough (Kubernetes RBAC, "Referring to resources").
            field_selector=f"metadata.name={name.name}",
            transform=_only_data,
            on_answer=self._on_answer,
        )

    def seen(self) -> PluginConfigSeen | None:
        """None while nothing is known."""
        with self._lock:
            forbidden = self._forbidden
        if not self.reflector.has_synced.is_set():
            return PluginConfigSeen(str(self._name), None, forbidden) if forbidden else None
        found = self.reflector.store.get(self._name.name, self._name.namespace)
        return PluginConfigSeen(str(self._name), None if found is None else found["data"], forbidden)

    def wait_for_answer(self, timeout: float) -> bool:
        """Wait until the server has shown the object, said that there is none, or refused."""
        return self._answered.wait(timeout)

    def _on_answer(self, error: ApiError | None) -> None:
        if error is not None and not isinstance(error, Forbidden):
            return  # the server is away; what was seen stays
        with self._lock:
            self._forbidden = "" if error is None else error.message
        self._answered.set()
        self._changed()


def _only_data(config_map: Obj) -> Obj:
    metadata = config_map["metadata"]
    data = {str(key): str(text) for key, text in (config_map.get("data") or {}).items()}
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata}
    return {"metadata": kept, "data": data}
