"""The controller as one object: makes its parts, and starts and stops them in order.

Caches are warm on every replica; only the one that leads has workers. After losing the lease it does not come back:
its process ends and is started again, which is the only way to be sure that nothing of it still writes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.challenge import ChallengeTimings
from controller.inputs import InputListeners, Inputs
from controller.metrics import ControllerMetrics
from controller.plugin_config import ObjectName
from controller.publisher import Publisher, PublisherSettings
from controller.reports import Reporter
from controller.writes import SliceWriter
from dra_driver.devices.policy import DevicePolicy
from dra_driver.kube.election import LeaderElector
from dra_driver.kube.interface import KubeApi, Obj
from dra_driver.kube.workqueue import Workers, WorkQueue
from dra_driver.observability.endpoint import HttpEndpoint
from dra_driver.observability.events import EventRecorder
from dra_driver.observability.loops import Loop, standing_still
from dra_driver.observability.metrics import LoopCollector, QueueCollector, ReflectorCollector, new_registry

logger = logging.getLogger(__name__)

COMPONENT = "gpu-dra-controller"

_WORKERS = 4
# A request must reach the API server while nobody else can have the lease. Its answer may take longer; one that is held
# up on the way is caught by its resourceVersion, and a slice created twice is deleted again as one too many.
_WRITE_MARGIN_SECONDS = 3.0
_STOP_SECONDS = 10.0
_SYNC_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Election:
    """Which Lease, as whom, and its times in seconds."""

    namespace: str
    name: str
    identity: str
    lease_seconds: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """``election`` is None for a controller that is the only one. ``http_endpoint`` is empty for none.

    ``plugin_config``: the ConfigMap with the device plugin's configurations; None when none is read."""

    driver: str
    identity: str = ""
    policy: DevicePolicy = field(default_factory=DevicePolicy)
    timings: ChallengeTimings = field(default_factory=ChallengeTimings)
    election: Election | None = None
    plugin_config: ObjectName | None = None
    http_endpoint: str = ""
    metrics_path: str = "/metrics"


class Controller:
    """Everything between start and stop."""

    def __init__(self, api: KubeApi, options: ControllerOptions, *, on_lost: Callable[[], None] = lambda: None) -> None:
        """``on_lost`` is called once when it leads no more; the process should then end."""
        self._on_lost = on_lost
        self._options = options
        self._registry = new_registry("controller")
        self.metrics = ControllerMetrics(self._registry)
        self._stopping = threading.Event()
        self._queue: WorkQueue[str] = WorkQueue("pools")
        self._events = EventRecorder(api, COMPONENT, options.identity)
        listeners = InputListeners(self._queue.add, self._slice_changed)
        self.inputs = Inputs(api, options.driver, listeners, options.plugin_config)
        self._publisher = Publisher(
            api,
            PublisherSettings(options.driver, options.policy, options.timings),
            self.inputs,
            SliceWriter(api, self.may_write, self.metrics),
            Reporter(api, self._events, self.metrics),
            self.metrics,
            requeue_all=self._queue_all,
        )
        self._workers = Workers(self._queue, self._publisher.reconcile, count=_WORKERS, name="publisher")
        self._registry.register(ReflectorCollector(self.inputs.reflectors))
        self._registry.register(QueueCollector([self._queue]))
        self.metrics.leader.set_function(lambda: float(self.is_leading()))
        self._elector = self._make_elector(api, options.election)
        self._leader: threading.Thread | None = None
        self._registry.register(LoopCollector(self._loops()))
        self._endpoint = self._make_endpoint()

    @property
    def http_port(self) -> int:
        """Where metrics and health are served; 0 when they are not."""
        return self._endpoint.port if self._endpoint else 0

    def start(self) -> None:
        """1. Events; 2. HTTP endpoint (raises OSError when its port is taken); 3. caches; 4. the race for the lease,
        or leading at once."""
        self._events.start()
        if self._endpoint:
            self._endpoint.start()
        self.inputs.start()
        if self._elector:
            self._elector.start()
        else:
            self._leader = threading.Thread(target=self._lead_alone, name="leader", daemon=True)
            self._leader.start()

    def stop(self) -> None:
        """1. stop leading: workers finish the node they are at, then the lease is released; 2. caches; 3. Events are
        flushed; 4. HTTP endpoint. Slices stay as they are."""
        self._stopping.set()
        if self._elector:
            self._elector.stop()
        if self._leader:
            self._leader.join(_STOP_SECONDS)
        self.inputs.stop()
        self._events.stop()
        if self._endpoint:
            self._endpoint.stop()

    def is_leading(self) -> bool:
        return self._elector.is_leader() if self._elector else not self._stopping.is_set()

    def may_write(self) -> bool:
        """Whether a request that is sent now arrives while nobody else leads."""
        if self._elector is None:
            return not self._stopping.is_set()
        return self._elector.is_leader() and self._elector.holds_lease_for(_WRITE_MARGIN_SECONDS)

    def ready_problem(self) -> str | None:
        """What /readyz says; None when ready. A standby with warm caches is ready."""
        missing = self.inputs.not_synced()
        return f"not listed yet: {', '.join(missing)}" if missing else None

    # -- leading ----------------------------------------------------------------------------------------------------

    def _lead(self, stop: threading.Event) -> None:
        """Runs on the leader's thread until ``stop`` is set."""
        while not self.inputs.wait_for_sync(_SYNC_CHECK_SECONDS):
            if stop.is_set():
                return
        self._queue_all()
        self._workers.start()
        stop.wait()
        self._workers.stop(_STOP_SECONDS)

    def _lead_alone(self) -> None:
        try:
            self._lead(self._stopping)
        except Exception:
            # As where a Lease is lost: the process ends and is started again.
            logger.exception("the leader's work broke")
            self._lost()

    def _lost(self) -> None:
        if not self._stopping.is_set():
            self._on_lost()

    def _queue_all(self) -> None:
        for name in self.inputs.pools():
            self._queue.add(name)

    def _slice_changed(self, pool: str, old: Obj | None, new: Obj | None) -> None:
        self._publisher.slice_changed(pool, old, new)
        self._queue.add(pool)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _loops(self) -> tuple[Loop, ...]:
        reflectors = (reflector.loop for reflector in self.inputs.reflectors)
        return (
            self._events.loop,
            *reflectors,
            *self._workers.loops,
            *(self._elector.loops if self._elector else ()),
        )

    def _make_elector(self, api: KubeApi, election: Election | None) -> LeaderElector | None:
        if election is None:
            return None
        return LeaderElector(
            api,
            namespace=election.namespace,
            name=election.name,
            identity=election.identity,
            on_started=self._lead,
            on_stopped=self._lost,
            lease_seconds=election.lease_seconds,
            renew_deadline=election.renew_deadline,
            retry_period=election.retry_period,
        )

    def _make_endpoint(self) -> HttpEndpoint | None:
        if not self._options.http_endpoint:
            return None
        return HttpEndpoint(
            self._options.http_endpoint,
            self._registry,
            {"caches": self.ready_problem, "loops": lambda: standing_still(self._loops())},
            metrics_path=self._options.metrics_path,
        )
