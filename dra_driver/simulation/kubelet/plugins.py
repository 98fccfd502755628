"""The kubelet's plugin manager: finds registration sockets, registers, and knows which plugin of a driver to use.

Rules (kubelet pluginmanager and cm/dra/plugin): every socket in the registry folder is asked who it is, within one
second; the first service in its list that we know is used; the plugin is told whether it was taken; failures are tried
again with growing pauses per socket. A plugin is gone when its socket is removed, and unusable while its connection is
down. Of several plugins of one driver the newest connected one is used.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import grpc

from api.kubelet import registration_v1_pb2 as registration
from api.kubelet.services import PLUGIN_TYPE, REGISTRATION
from dra_driver.simulation.kubelet.health import HealthCache, HealthStream
from dra_driver.simulation.kubelet.options import KubeletOptions
from dra_driver.simulation.kubelet.plugin import CHANNEL_OPTIONS, CallFailed, Plugin
from dra_driver.simulation.kubelet.wiper import SliceWiper

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Socket:
    """A registration socket as it was last seen; a new file at the same path is a new socket."""

    identity: tuple[int, int]
    plugin: Plugin | None = None
    next_try: float = 0.0
    pause: float = 0.0


class PluginManager:
    """One thread, ``kubelet-plugins-<node>``, between start and stop."""

    def __init__(
        self, node_name: str, registry: Path, wiper: SliceWiper, health: HealthCache, options: KubeletOptions
    ) -> None:
        self._node_name = node_name
        self._registry = registry
        self._wiper = wiper
        self._health = health
        self._options = options
        self._lock = threading.RLock()
        self._sockets: dict[Path, _Socket] = {}
        self._plugins: list[Plugin] = []  # in the order in which they registered
        self._streams: dict[Plugin, HealthStream] = {}
        self._stopping = threading.Event()
        self._registered = threading.Condition()
        self._thread: threading.Thread | None = None
        self.registrations: list[tuple[str, str]] = []  # (driver, endpoint), one per accepted registration

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"kubelet-plugins-{self._node_name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """1. Stop watching. 2. Close all connections. Plugins are not told, as when a kubelet dies."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            plugins, self._plugins = self._plugins, []
            self._sockets.clear()
        for plugin in plugins:
            self._close(plugin)

    def get(self, driver: str) -> Plugin:
        """The plugin to call. Raises :class:`CallFailed` with the kubelet's words when there is none."""
        with self._lock:
            ours = [plugin for plugin in self._plugins if plugin.driver == driver]
        if not ours:
            raise CallFailed(f"DRA driver {driver} is not registered")
        return next((plugin for plugin in reversed(ours) if plugin.connected), ours[-1])

    def plugins(self) -> tuple[Plugin, ...]:
        """All registered plugins, oldest first."""
        with self._lock:
            return tuple(self._plugins)

    def wait_for(self, driver: str, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait until ``count`` plugins of ``driver`` are registered and connected."""

        def there() -> bool:
            return sum(plugin.driver == driver and plugin.connected for plugin in self.plugins()) >= count

        with self._registered:
            return self._registered.wait_for(there, timeout)

    def drop_connections(self, reconnect_after: float) -> None:
        """Fault: all plugin connections break, and come back after ``reconnect_after`` seconds."""
        plugins = self.plugins()
        for plugin in plugins:
            plugin.disconnect()

        def reconnect() -> None:
            for plugin in plugins:
                plugin.connect()

        timer = threading.Timer(reconnect_after, reconnect)
        timer.name = f"kubelet-reconnect-{self._node_name}"
        timer.daemon = True
        timer.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._options.poll_interval):
            try:
                self._look()
            except Exception:
                # Thread boundary: one odd socket must not end the watching of all others.
                logger.exception("looking for plugins failed")

    def _look(self) -> None:
        present = self._present()
        for path, known in list(self._sockets.items()):
            if present.get(path) != known.identity:
                del self._sockets[path]
                if known.plugin is not None:
                    self._deregister(known.plugin)
        now = time.monotonic()
        for path, identity in present.items():
            entry = self._sockets.setdefault(path, _Socket(identity, pause=self._options.registration_backoff))
            if entry.plugin is not None or entry.next_try > now:
                continue
            if not self._register(path, entry):
                entry.next_try = time.monotonic() + entry.pause
                entry.pause = min(entry.pause * 2, self._options.registration_backoff_limit)

    def _present(self) -> dict[Path, tuple[int, int]]:
        present = {}
        for path in sorted(self._registry.glob("*")):
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISSOCK(found.st_mode) and not path.name.startswith("."):
                present[path] = (found.st_ino, found.st_mtime_ns)  # a chmod changes neither
        return present

    def _register(self, path: Path, entry: _Socket) -> bool:
        options = self._options
        with grpc.insecure_channel(f"unix:{path}", options=CHANNEL_OPTIONS) as channel:
            client = REGISTRATION.client(channel)
            try:
                info = client.get_info(options.get_info_timeout)
            except grpc.RpcError as error:
                logger.info("registration: GetInfo failed: %r", error, extra={"socket": str(path)})
                return False
            refusal = ""
            plugin = None
            try:
                plugin = self._add(info)
            except CallFailed as error:
                refusal = str(error)
                logger.warning("registration refused: %s", refusal, extra={"socket": str(path)})
            status = registration.RegistrationStatus(plugin_registered=not refusal, error=refusal)
            try:
                client.notify(status, options.notify_timeout)
            except grpc.RpcError as error:
                logger.info("registration: notification failed: %r", error, extra={"socket": str(path)})
                if plugin is not None:
                    self._deregister(plugin)
                return False
        entry.plugin = plugin
        return plugin is not None

    def _add(self, info: registration.PluginInfo) -> Plugin:
        if info.type != PLUGIN_TYPE:
            raise CallFailed(f"no handler registered for plugin type: {info.type} at socket {info.endpoint}")
        offered = tuple(info.supported_versions)
        service = next((version for version in offered if version in self._options.known_services), None)
        if service is None:
            raise CallFailed(
                f"invalid supported gRPC versions of DRA driver plugin {info.name} at endpoint {info.endpoint}: plugin "
                f"supports {list(offered)}, kubelet supports {list(self._options.known_services)}"
            )
        with self._lock:
            if any(plugin.driver == info.name and plugin.endpoint == info.endpoint for plugin in self._plugins):
                raise CallFailed(f"endpoint {info.endpoint} already registered for DRA driver plugin {info.name}")
            plugin = Plugin(info.name, info.endpoint, service, self._sync)
            self._plugins.append(plugin)
            self.registrations.append((info.name, info.endpoint))
        plugin.connect()
        self._open_health_stream(plugin, offered)
        logger.info("registered DRA plugin", extra={"driver": info.name, "endpoint": info.endpoint, "service": service})
        return plugin

    def _deregister(self, plugin: Plugin) -> None:
        with self._lock:
            if plugin in self._plugins:
                self._plugins.remove(plugin)
        self._close(plugin)
        logger.info("deregistered DRA plugin", extra={"driver": plugin.driver, "endpoint": plugin.endpoint})
        self._sync(plugin)

    def _open_health_stream(self, plugin: Plugin, offered: Collection[str]) -> None:
        service = next((version for version in self._options.health_services if version in offered), None)
        if service is not None:
            stream = HealthStream(plugin, service, self._health, self._options.health_redial)
            with self._lock:
                self._streams[plugin] = stream
            stream.start()

    def _close(self, plugin: Plugin) -> None:
        with self._lock:
            stream = self._streams.pop(plugin, None)
        if stream is not None:
            stream.stop()
        plugin.close()

    def _sync(self, changed: Plugin) -> None:
        """A plugin came, went, or changed its connection: plan or call off the removal of its driver's slices."""
        with self._lock:
            usable = any(plugin.driver == changed.driver and plugin.connected for plugin in self._plugins)
            if usable:
                self._wiper.cancel(changed.driver)
            elif not self._stopping.is_set():
                self._wiper.schedule(changed.driver, self._options.wipe_delay)
        with self._registered:
            self._registered.notify_all()
