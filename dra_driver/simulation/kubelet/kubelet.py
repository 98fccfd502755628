"""A kubelet for one node that really speaks to DRA plugins and only pretends to run containers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from dra_driver.kube.interface import NODES, PODS, AlreadyExists, KubeApi, NotFound, Obj
from dra_driver.kube.reflector import Reflector
from dra_driver.kube.workqueue import Workers, WorkQueue
from dra_driver.observability.events import EventRecorder
from dra_driver.simulation.kubelet import status
from dra_driver.simulation.kubelet.claim_cache import ClaimCache
from dra_driver.simulation.kubelet.health import HealthCache
from dra_driver.simulation.kubelet.manager import Call, DraManager
from dra_driver.simulation.kubelet.options import KubeletOptions
from dra_driver.simulation.kubelet.plugins import PluginManager
from dra_driver.simulation.kubelet.pods import PodKey, PodWorker, ViewStore
from dra_driver.simulation.kubelet.wiper import SliceWiper
from dra_driver.simulation.runtime.runtime import ContainerRuntime, ContainerView

logger = logging.getLogger(__name__)


class FakeKubelet:
    """Lives in ``root``: ``plugins_registry/`` and ``plugins/`` for the plugins' sockets, ``dra_manager_state``, and
    ``containers/<podUID>/<container>.json`` with what each container saw. Keep ``root`` short: a socket path has 107
    bytes. ``cdi_dirs`` are read as the runtime does, the last one having priority.

    What is public beside start and stop serves tests and the demo: views, calls, and faults to inject.
    """

    def __init__(
        self,
        node_name: str,
        api: KubeApi,
        root: Path,
        cdi_dirs: Sequence[Path],
        *,
        options: KubeletOptions | None = None,
    ) -> None:
        self.node_name = node_name
        self.root = root
        self.registry_dir = root / "plugins_registry"
        self.plugins_dir = root / "plugins"
        self.options = options or KubeletOptions()
        self.runtime = ContainerRuntime(cdi_dirs)
        self._api = api
        self._views = ViewStore(root / "containers")
        self._cache = ClaimCache(root)
        self.wiper = SliceWiper(api, node_name, self.options.wipe_retry)
        self.health = HealthCache(self.options.health_timeout)
        self.plugins = PluginManager(node_name, self.registry_dir, self.wiper, self.health, self.options)
        self.manager = DraManager(api, self.plugins, self._cache, self.health, self.options)
        self._session: _Session | None = None

    def start(self) -> None:
        """1. Node and folders. 2. The checkpoint. 3. Wipe slices, look for plugins. 4. Watch pods."""
        if self._session is not None:
            return
        for folder in (self.registry_dir, self.plugins_dir):
            folder.mkdir(parents=True, exist_ok=True)
        if self.options.create_node:
            ensure_node(self._api, self.node_name)
        self._cache.load()
        self.wiper.start()
        self.plugins.start()
        self._session = _Session(self._api, self.node_name, self.options, self.manager, self.runtime, self._views)
        self.health.on_change(self._session.health_changed)
        self._session.start()

    def stop(self) -> None:
        """As a kubelet dies: 1. pods are left alone; 2. connections break; 3. nothing is unprepared or wiped."""
        if self._session is None:
            return
        self._session.begin_stop()
        self.plugins.stop()
        self._session.stop()
        self._session = None
        self.wiper.stop()

    def restart(self) -> None:
        """Containers keep running; slices are wiped, plugins registered again, claims known but not as prepared."""
        self.stop()
        self.start()

    def drop_connections(self, reconnect_after: float = 0.1) -> None:
        """Fault: every connection to a plugin breaks, calls in flight with it, and comes back a little later."""
        self.plugins.drop_connections(reconnect_after)

    def wait_for_plugin(self, driver: str, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait until ``count`` plugins of ``driver`` are registered and connected; False after ``timeout`` seconds."""
        return self.plugins.wait_for(driver, count, timeout)

    def container_view(self, pod_uid: str, container: str) -> ContainerView | None:
        """What a container of this node saw when it was last created, also after its end."""
        return self._views.get(pod_uid, container)

    def container_views(self) -> tuple[ContainerView, ...]:
        return self._views.all()

    @property
    def calls(self) -> tuple[Call, ...]:
        """The prepare and unprepare calls made so far (the last 10,000)."""
        return tuple(self.manager.calls)

    @property
    def violations(self) -> tuple[str, ...]:
        """Repeated calls (option ``repeat_calls``) that were not answered the same."""
        return tuple(self.manager.violations)


class _Session:
    """What lives from one start of the kubelet to its stop: the pod watch, its workers, the reconcile loop."""

    def __init__(
        self,
        api: KubeApi,
        node_name: str,
        options: KubeletOptions,
        manager: DraManager,
        runtime: ContainerRuntime,
        views: ViewStore,
    ) -> None:
        self._options = options
        self._manager = manager
        self._queue: WorkQueue[PodKey] = WorkQueue(f"kubelet-{node_name}")
        self._events = EventRecorder(api, "kubelet", node_name)
        self._pods = Reflector(api, PODS, self._changed, field_selector=f"spec.nodeName={node_name}")
        worker = PodWorker(api, manager, runtime, views, self._events, options, self._lookup)
        self._workers = Workers(self._queue, worker.sync, count=options.pod_workers, name=f"kubelet-pods-{node_name}")
        self._stopping = threading.Event()
        self._reconciler = threading.Thread(target=self._reconcile, name=f"kubelet-reconcile-{node_name}", daemon=True)

    def start(self) -> None:
        self._events.start()
        self._workers.start()
        self._pods.start()
        self._reconciler.start()

    def begin_stop(self) -> None:
        """Take no more work on; calls in flight go on."""
        self._stopping.set()
        self._queue.shut_down()

    def stop(self) -> None:
        """1. No more work. 2. Wait for the threads, a little."""
        self.begin_stop()
        self._pods.stop()
        self._workers.stop(timeout=2.0)
        self._reconciler.join(timeout=2.0)
        self._events.stop(timeout=2.0)

    def health_changed(self, driver: str) -> None:
        """Look again at the pods with claims of ``driver``."""
        concerned = self._manager.pods_of_driver(driver)
        for pod in self._pods.store.objects():
            if pod["metadata"]["uid"] in concerned:
                self._queue.add(PodKey.of(pod))

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):  # two pods, when one of the same name replaced the other
            if pod is not None:
                self._queue.add(PodKey.of(pod))

    def _lookup(self, key: PodKey) -> Obj | None:
        pod = self._pods.store.get(key.name, key.namespace)
        return pod if pod is not None and pod["metadata"]["uid"] == key.uid else None

    def _reconcile(self) -> None:
        while not self._stopping.is_set() and not self._pods.wait_for_sync(0.1):
            pass
        while not self._stopping.is_set():
            active = {pod["metadata"]["uid"] for pod in self._pods.store.objects()}
            self._manager.reconcile(active)
            self._stopping.wait(self._options.reconcile_interval)


def ensure_node(api: KubeApi, name: str) -> Obj:
    """The Node, created and Ready if it was not."""
    try:
        found = api.get(NODES, name)
    except NotFound:
        try:
            found = api.create(NODES, status.node(name))
        except AlreadyExists:
            found = api.get(NODES, name)
    if status.is_ready(found):
        return found
    return api.patch(NODES, name, {"status": status.node_status()}, subresource="status")
