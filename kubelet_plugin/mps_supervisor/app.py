"""The supervisor process, put together: which part exists once, and in which order parts start and stop.

Only one supervisor of a folder works. Another one, such as the next pod of an upgrade, waits for the folder's lock,
which the kernel gives back when its holder ends, however it ends. Stopping leaves daemons running.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from api.driver_config import DriverConfiguration
from dra_driver.errors import DriverError, StateError
from dra_driver.hardware.kernel_module import module_version
from dra_driver.mps.group import groups_folder, socket_of
from dra_driver.observability.endpoint import HttpEndpoint
from dra_driver.observability.loops import Loop, standing_still
from dra_driver.observability.metrics import LoopCollector, new_registry
from kubelet_plugin.mps_supervisor.adoption import adopt
from kubelet_plugin.mps_supervisor.canary import Canary
from kubelet_plugin.mps_supervisor.cgroups import Cgroups, OwnCgroups
from kubelet_plugin.mps_supervisor.daemon import Daemons
from kubelet_plugin.mps_supervisor.gpus import NodeGpus
from kubelet_plugin.mps_supervisor.group_steps import GroupSteps, Tools
from kubelet_plugin.mps_supervisor.metrics import GroupCollector, SupervisorMetrics
from kubelet_plugin.mps_supervisor.namespaces import Isolation, Namespaces
from kubelet_plugin.mps_supervisor.observer import Observer
from kubelet_plugin.mps_supervisor.probe import Protocols
from kubelet_plugin.mps_supervisor.service import THREADS, SupervisorService
from kubelet_plugin.mps_supervisor.share_calls import ShareCalls
from kubelet_plugin.mps_supervisor.supervisor import Supervisor
from kubelet_plugin.mps_supervisor.surroundings import Home, host_namespaces
from kubelet_plugin.node.hardware import build_hardware, canary_program, driver_root, read_boot_id
from kubelet_plugin.node.unix_server import UnixServer

logger = logging.getLogger(__name__)

COMPONENT = "gpu-dra-mps-supervisor"

_LOCK = "supervisor.lock"
_FOLDER_MODE = 0o700  # what protects the socket; containers get what is inside by bind mounts
_TAKE_SECONDS = 0.2
_LIMIT_SECONDS = 60.0  # leftovers of many groups may have to be killed
_CALLS_GRACE_SECONDS = 5.0


class SupervisorApp:
    """One supervisor on one node."""

    def __init__(
        self, config: DriverConfiguration, *, isolation: Isolation | None = None, cgroups: OwnCgroups | None = None
    ) -> None:
        """``isolation``, ``cgroups``: in place of the kernel's."""
        spec = config.spec
        self._stack = ExitStack()
        plugin_folder = spec.kubelet.plugins_directory / spec.driver_name
        self._folder = groups_folder(plugin_folder)
        # Not yet: a simulated node may still be in the making. And once only, since it does not change.
        self._boot_id = cache(lambda: read_boot_id(spec))
        simulated = spec.hardware.simulated_state is not None
        namespaces = None if simulated else host_namespaces()
        self._isolation = isolation or Namespaces()
        cgroups = cgroups or Cgroups(host_namespaces())
        home = Home(driver_root(spec), namespaces=namespaces)
        registry = new_registry(COMPONENT)
        counts = SupervisorMetrics(registry)
        daemons = Daemons(home, self._isolation, cgroups, counts)
        self._gpus = NodeGpus(build_hardware(spec), lambda: module_version(spec.hardware.host_root))
        tools = Tools(self._gpus, self._isolation, cgroups, daemons, Protocols(home, self._isolation))
        self._steps = GroupSteps(self._folder, self._boot_id, tools)

        self._supervisor = Supervisor(
            self._steps,
            self._gpus,
            counts,
            start_seconds=spec.mps.start_timeout,
            drain_seconds=spec.mps.drain_timeout,
        )
        shares = ShareCalls(self._supervisor, self._steps, counts, wait_seconds=spec.mps.start_timeout)
        self._observer = Observer(
            self._supervisor,
            shares,
            daemons,
            Canary(home, self._isolation, canary_program(spec)),
            self._steps.folders,
            counts,
            spec.mps.canary_interval,
        )
        socket = socket_of(plugin_folder)
        self._service = SupervisorService(self._supervisor, shares, socket)
        self._server = UnixServer("mps-supervisor", socket, THREADS, (self._service.handler(),))
        self._work = ExitStack()  # what began when the lock was taken
        self._lock = -1
        self._adopted = False
        self._serving = False
        self._take_over = Loop(
            "mps-take-over",
            self._take,
            limit=_LIMIT_SECONDS,
            doing="taking over the node's MPS groups",
            expected=(DriverError, OSError),
        )
        self._loops = (self._take_over, self._observer.ends, self._observer.looks)
        registry.register(GroupCollector(self._supervisor.groups, lambda: self._steps.cgroup_problem))
        registry.register(LoopCollector(self._loops))
        self._endpoint: HttpEndpoint | None = None
        if spec.observability.http_endpoint is not None:
            self._endpoint = HttpEndpoint(
                spec.observability.http_endpoint,
                registry,
                {
                    "groups": lambda: None if self._serving else "the MPS groups of this node are not taken over yet",
                    "hardware": self._gpus.problem,
                    "loops": lambda: standing_still(self._loops),
                },
                metrics_path=spec.observability.metrics_path,
            )

    def start(self) -> None:
        """1. HTTP. 2. The lock, which may have to be waited for on a thread of its own, and then the rest.

        Raises StateError or OSError when that cannot be.
        """
        with ExitStack() as stack:
            stack.callback(self._gpus.stop)
            self._lock = stack.enter_context(_lock_file(self._folder))
            if self._endpoint is not None:
                self._endpoint.start()
                stack.callback(self._endpoint.stop)
            stack.enter_context(self._work)
            self._take_over.start()
            stack.callback(self._take_over.stop, _LIMIT_SECONDS)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """1. Taking over. 2. The socket, calls in flight. 3. Observing. 4. HTTP. 5. The lock. Daemons run on."""
        self._stack.close()

    def _take(self) -> float | None:
        """A round that waits for the lock; then one that adopts and serves. Raises DriverError, OSError."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _TAKE_SECONDS
        if not self._adopted:
            for running in adopt(self._folder, self._boot_id(), self._steps, self._isolation):
                self._supervisor.adopt(running)
            self._observer.start()
            self._work.callback(self._observer.stop)
            self._adopted = True
        self._server.start()
        self._work.callback(self._service.close)
        self._work.callback(self._server.stop, _CALLS_GRACE_SECONDS)
        self._work.callback(self._service.end_watches)
        self._serving = True
        return None


@contextmanager
def _lock_file(folder: Path) -> Iterator[int]:
    """The descriptor of the lock of ``folder``, which is made, and root's alone. Raises StateError, OSError."""
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StateError(
            f"{folder} is not a folder of ours: owner {found.st_uid}, mode {stat.filemode(found.st_mode)}",
            hint="remove it; the supervisor makes it",
        )
    folder.chmod(_FOLDER_MODE)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
