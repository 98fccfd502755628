"""The plugin process, put together: which part exists once, what it is given, in which order parts start and stop.

    hardware watch --> published hardware --> inventory writer --> NodeInventory
          |                   ^                      ^
          v                   |                      |
    prepare engine -----------+             kubelet connection
          ^                                          ^
          |                                          |
     DRA service                           registration service

The two services are on a unix socket each, with the health service beside the first.
MIG layouts are applied between the engine's claims: under its locks, to the GPUs that none of them holds.
Nothing is decided here; each part's module says what it is responsible for.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from api.driver_config import DriverConfiguration, Identity
from api.driver_spec import ObservabilitySettings
from api.fractions import SharingBackend
from dra_driver.cdi.store import CdiStore
from dra_driver.devices.configured import device_policy
from dra_driver.errors import StateError
from dra_driver.hardware.nvml import DeviceMemory, GpuEvents
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import KubeApi
from dra_driver.observability.endpoint import HttpEndpoint
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from dra_driver.observability.loops import standing_still
from dra_driver.observability.metrics import LoopCollector, ReflectorCollector, new_registry
from dra_driver.version import __version__
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.endpoint import dra_service
from kubelet_plugin.endpoint.calls_under_way import CallsUnderWay
from kubelet_plugin.endpoint.connection import KubeletConnection
from kubelet_plugin.endpoint.dra_service import DraService
from kubelet_plugin.endpoint.registration import RegistrationService
from kubelet_plugin.endpoint.self_check import SocketCheck, hardware_check, registration_check
from kubelet_plugin.endpoint.servers import PluginServers
from kubelet_plugin.endpoint.sockets import socket_paths
from kubelet_plugin.hardware.driver_change import DriverChange
from kubelet_plugin.hardware.events import HardwareEvents
from kubelet_plugin.hardware.setup import build_edits, build_obstacles, host_file
from kubelet_plugin.hardware.watch import HardwareWatch
from kubelet_plugin.health import service as health_service
from kubelet_plugin.health.service import HealthService
from kubelet_plugin.health.states import DeviceUuids
from kubelet_plugin.health.troubles import TroubledDevices
from kubelet_plugin.inventory.sharing import NodeSharingInForce
from kubelet_plugin.inventory.status import PluginInstance
from kubelet_plugin.inventory.writer import InventoryWriter
from kubelet_plugin.kinds import build_kinds, tools_of
from kubelet_plugin.kinds.fence.cgroups import CgroupFences, build_room
from kubelet_plugin.kinds.fence.facts import FoundFences
from kubelet_plugin.kinds.fence.measuring import FencedHardware
from kubelet_plugin.kinds.fence.metrics import FenceCollector
from kubelet_plugin.kinds.fence.serving import MpsPresence, MpsServing
from kubelet_plugin.kinds.fence.telling import FenceStatuses
from kubelet_plugin.kinds.mig.judged import JudgedHardware
from kubelet_plugin.kinds.mig.layout_applier import LayoutApplier
from kubelet_plugin.kinds.mig.layout_events import LayoutEvents
from kubelet_plugin.kinds.mps.events import DaemonEvents
from kubelet_plugin.kinds.mps.told import ToldHardware
from kubelet_plugin.kinds.time_slice import is_time_sliced
from kubelet_plugin.memory_fence import room as memory_fence
from kubelet_plugin.node.hardware import build_hardware, read_boot_id
from kubelet_plugin.prepare.checkpoint import STATE_FOLDER
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.takeover.kubelet_claims import FILE_NAME as KUBELET_STATE
from kubelet_plugin.takeover.take_over import Neighbourhood, TakeOver
from kubelet_plugin.telling.engine_listener import EngineListener
from kubelet_plugin.telling.failure_events import FailureEvents
from kubelet_plugin.telling.metrics import CallMetrics, PluginCollector
from kubelet_plugin.telling.smi_metrics import SmiMetrics
from kubelet_plugin.telling.stuck_work import StuckWorkCollector, StuckWorkEvents, stuck_check

logger = logging.getLogger(__name__)

COMPONENT = "gpu-dra-kubelet-plugin"
REFUSALS_BEFORE_EXIT = 8  # the kubelet asks with doubling pauses: about a minute of refusals

_FIRST_READING_SECONDS = 5.0
_CALLS_GRACE_SECONDS = 15.0  # of the 30 s that a pod has to end


class PluginApp:
    """One plugin on one node. ``give_up`` is called, from any thread, with the reason to end the process."""

    def __init__(
        self,
        config: DriverConfiguration,
        who: Identity,
        give_up: Callable[[str], None],
        *,
        api: KubeApi | None = None,
    ) -> None:
        """``api``: in place of the configured cluster. Raises ``DriverError`` when something configured cannot be."""
        spec = config.spec
        driver, node = spec.driver_name, who.node_name
        self._give_up = give_up
        self._stack = ExitStack()
        self._paths = socket_paths(
            driver, spec.kubelet.plugins_directory, spec.kubelet.registrar_directory, who.pod_uid
        )
        api = api or connect(spec.kubernetes.kubeconfig, timeout=spec.kubernetes.request_timeout)
        boot_id = read_boot_id(spec)
        registry = new_registry(COMPONENT)

        self._events = EventRecorder(api, COMPONENT, node)
        self._failure_events = FailureEvents(api, self._events)
        edits = build_edits(spec)
        self._hardware = HardwareWatch(
            build_hardware(spec), spec.hardware.rescan_interval, obstacles=build_obstacles(spec, edits)
        )
        self._hardware_events = HardwareEvents(self._hardware, GpuEvents())
        # Our own health check connects too, and must not pass for the kubelet.
        self._connection = KubeletConnection(self._paths.dra, ignored_pid=os.getpid())
        policy = NodePolicy(node, boot_id, device_policy(spec), spec.enabled_gates())
        sharing = NodeSharingInForce(policy.devices.sharing)
        plugin_folder = spec.kubelet.plugins_directory / driver
        found = FoundFences(plugin_folder)
        self._cgroup_fences = CgroupFences(
            plugin_folder / memory_fence.FOLDER,
            lambda shares: build_room(spec, shares, boot_id),
            wanted=policy.devices.sharing.has_fractions,
        )
        tools = tools_of(spec, policy, edits, sharing, found, self._cgroup_fences, SmiMetrics(registry))
        found.check(SharingBackend.CGROUP, lambda: self._cgroup_fences.has_limits(self._gpu_uuids()))
        mps = MpsPresence(tools.supervisor)
        found.check(SharingBackend.MPS_NAMESPACE, mps.speaks_named)
        found.check(SharingBackend.MPS, mps.is_there)
        kinds = build_kinds(tools)
        self._node_ref = node_ref = ObjectRef("v1", "Node", node)
        self._kinds = kinds
        cdi, listener = CdiStore(spec.cdi.root), EngineListener(registry, self._events, self._failure_events, node_ref)
        kubelet_state = host_file(spec, spec.kubelet.plugins_directory.parent / KUBELET_STATE)
        self._take_over = TakeOver(
            spec.kubelet.plugins_directory / driver,
            driver,
            boot_id,
            cdi,
            kinds,
            Neighbourhood(self._hardware.machine, tools.mig.instances, kubelet_state),
            listener,
            is_time_sliced=is_time_sliced,
            hand_over=spec.kubelet.hand_over,
        )
        self._engine = PrepareEngine(
            api=api,
            driver_name=driver,
            machine=self._hardware.machine,
            cdi=cdi,
            edits=edits,
            state_folder=spec.kubelet.plugins_directory / driver / STATE_FOLDER,
            kinds=kinds,
            policy=policy,
            listener=listener,
        )
        self._driver_change = DriverChange(self._hardware, self._engine.put_right)
        judged = JudgedHardware(self._hardware, self._engine.entries, policy, tools.refused)
        troubled = TroubledDevices(self._hardware, self._engine.entries, kinds, boot_id)
        self._layouts = LayoutApplier(
            spec.mig, policy, self._hardware, tools.mig, self._engine, LayoutEvents(self._events, node_ref)
        )
        self._fenced = FencedHardware(
            ToldHardware(judged, self._hardware, tools.mps_states),
            self._hardware,
            found,
            policy,
            self._engine,
            DeviceMemory(),
            MpsServing(tools.supervisor, found),
            self._cgroup_fences.unfenced,
            lambda: self._layouts.pending,
        )
        self._cgroup_fences.shares.entries = self._engine.entries
        self._inventory = InventoryWriter(
            api,
            node,
            PluginInstance(who.pod_uid or secrets.token_hex(8), __version__),
            self._fenced,
            self._connection,
            registry=str(spec.kubelet.registrar_directory),
            layouts=self._layouts,
            reader=sharing,
        )
        self._fence_statuses = FenceStatuses(
            api, driver, boot_id, self._engine.entries, self._trouble, self._failure_events, look=self._look_at_fences
        )
        tools.mps_states.on_change(lambda _before, _now: self._fence_statuses.look_again())
        tools.mps_states.on_change(DaemonEvents(self._failure_events, self._engine.entries).changed)
        tools.mps_states.on_change(lambda _before, _now: self._hardware.request_scan())
        tools.mps_states.on_told(self._fenced.loop.wake)  # that there is a supervisor
        self._mps_watch = tools.supervisor.watch(tools.mps_states.told)
        calls = CallsUnderWay()
        observers = (CallMetrics(registry, driver), self._failure_events, self._layouts, self._fence_statuses)
        service = DraService(self._engine, observers, calls=calls)
        health = HealthService(
            node, self._hardware, self._held_devices, mig=policy.devices.mig, troubles=lambda: troubled.devices
        )
        troubled.on_change(health.look_again)
        registration = RegistrationService(
            driver,
            self._paths.dra,
            (*dra_service.SUPPORTED_VERSIONS, *health_service.SUPPORTED_VERSIONS),
            self._connection,
        )
        self._servers = PluginServers(
            driver, self._paths, (*service.handlers(), *health.handlers()), registration.handler(), health
        )
        self._connection.on_change(self._check_refusals)
        self._hardware.on_driver_replaced(self._driver_replaced)

        registry.register(PluginCollector(node, driver, self._hardware, self._connection, self._prepared_devices))
        registry.register(ReflectorCollector([self._inventory.reflector]))
        self._stuck = StuckWorkEvents(self._engine.stuck, self._events, node_ref)
        registry.register(StuckWorkCollector(self._engine.stuck))
        registry.register(FenceCollector(lambda: self._fence_statuses.found))
        self._loops = (
            self._events.loop,
            self._failure_events.loop,
            self._hardware.loop,
            self._hardware_events.loop,
            self._inventory.loop,
            self._inventory.reflector.loop,
            self._layouts.loop,
            self._fenced.loop,
            self._fence_statuses.loop,
            self._mps_watch.loop,
            self._driver_change.loop,
            self._stuck.loop,
        )
        registry.register(LoopCollector(self._loops))
        self._endpoint = self._build_endpoint(spec.observability, registry, SocketCheck(driver, self._paths, calls))

    def start(self) -> None:
        """1. Events. 2. Hardware. 3. Inventory. 4. Taking over. 5. Prepare engine, driver changes. 6. MIG layouts.
        7. What fractions need. 8. Watch of MPS groups. 9. Sockets. 10. HTTP.

        Raises ``DriverError`` or OSError when a part cannot start; what was started is stopped then. Hardware that does
        not answer is no reason: the node's pods must be unprepared all the same.
        """
        with ExitStack() as stack:
            self._events.start()
            stack.callback(self._events.stop)
            self._failure_events.start()
            stack.callback(self._failure_events.stop)
            self._hardware.start()
            stack.callback(self._hardware.stop)
            self._hardware_events.start()
            stack.callback(self._hardware_events.stop)
            self._inventory.start()
            stack.callback(self._inventory.stop)
            self._hardware.wait_for_first_reading(_FIRST_READING_SECONDS)
            self._cgroup_fences.start()
            stack.callback(self._cgroup_fences.stop)
            taken = self._take_over.start()
            stack.callback(self._take_over.stop)
            driver = self._driver_change.version()  # before the engine looks at its claims
            recovered = self._engine.start()
            stack.callback(self._engine.stop)
            self._driver_change.start(done_for=driver if recovered.is_all else None)
            stack.callback(self._driver_change.stop)
            self._stuck.start()
            stack.callback(self._stuck.stop)
            logger.info("state of earlier processes", extra={"recovered": recovered, "taken_over": taken})
            self._cgroup_fences.serve()
            self._layouts.start()
            stack.callback(self._layouts.stop)
            self._fenced.start()
            stack.callback(self._fenced.stop)
            self._fence_statuses.start()
            stack.callback(self._fence_statuses.stop)
            self._mps_watch.start()
            stack.callback(self._mps_watch.stop)
            self._servers.start()
            stack.callback(self._servers.stop, _CALLS_GRACE_SECONDS)
            if self._endpoint is not None:
                self._endpoint.start()
                stack.callback(self._endpoint.stop)
            stack.callback(self._hardware_events.request_stop)  # its wait ends while all else stops
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """1. HTTP. 2. Sockets: registration, then calls in flight. 3. Watch of MPS groups. 4. Fractions, MIG layouts.
        5. Driver changes, engine. 6. Handing over. 7. Inventory. 8. Hardware. 9. Events.
        """
        self._stack.close()

    def _build_endpoint(
        self, settings: ObservabilitySettings, registry: CollectorRegistry, sockets: SocketCheck
    ) -> HttpEndpoint | None:
        if settings.http_endpoint is None:
            return None
        return HttpEndpoint(
            settings.http_endpoint,
            registry,
            {
                "sockets": sockets.ready,
                "registration": lambda: registration_check(self._connection),
                "hardware": lambda: hardware_check(self._hardware),
                "loops": lambda: standing_still(self._loops),
                "state": self._engine.state_problem,
                "gpus": lambda: stuck_check(self._engine.stuck),
            },
            liveness={"sockets": sockets.alive},
            metrics_path=settings.metrics_path,
        )

    def _check_refusals(self) -> None:
        state = self._connection.state
        if state.refusals >= REFUSALS_BEFORE_EXIT:
            self._give_up(f"the kubelet refused this plugin {state.refusals} times: {state.refusal}")

    def _driver_replaced(self, reason: str) -> None:
        self._events.event(self._node_ref, EventKind.NORMAL, "DriverReplaced", reason)
        self._give_up(reason)

    def _gpu_uuids(self) -> tuple[str, ...]:
        machine = self._hardware.state.machine
        return () if machine is None else tuple(gpu.uuid for gpu in machine.gpus)

    def _look_at_fences(self) -> None:
        if self._cgroup_fences.look():
            self._fenced.look_again()

    def _trouble(self, device: HeldDevice, entry: ClaimEntry) -> str:
        machine = self._hardware.state.machine
        return "" if machine is None else self._kinds.trouble(device, entry, machine)

    def _prepared_devices(self) -> Mapping[str, int]:
        try:
            entries = self._engine.entries()
        except StateError as error:
            logger.warning("no count of prepared devices: %s", error)
            return {}
        return Counter(
            self._kinds.type_of(device.device_name) for entry in entries.values() for device in entry.prepared
        )

    def _held_devices(self) -> DeviceUuids:
        entries = self._engine.entries().values()
        return {held.prepared.device_name: self._kinds.gpu_of(held) for entry in entries for held in entry.devices}
