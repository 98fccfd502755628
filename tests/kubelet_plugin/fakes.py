"""A scripted prepare engine, a plugin around it with real servers, and a cluster small enough to see every call."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dra_driver.errors import DriverError
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, NotFound, Obj
from dra_driver.simulation.kubelet import FakeKubelet, KubeletOptions
from dra_driver.simulation.store import EmbeddedApi
from kubelet_plugin.claims.model import ClaimRef, Failures, Operation, PreparedDevice, PrepareOutcome, UnprepareOutcome
from kubelet_plugin.endpoint.calls_under_way import CallsUnderWay
from kubelet_plugin.endpoint.connection import KubeletConnection
from kubelet_plugin.endpoint.dra_service import SUPPORTED_VERSIONS, DraService
from kubelet_plugin.endpoint.registration import RegistrationService
from kubelet_plugin.endpoint.servers import PluginServers
from kubelet_plugin.endpoint.sockets import socket_paths

DRIVER = "gpu.nvidia.com"
NODE = "node-0"
CDI_KIND = "k8s.gpu.nvidia.com/claim"


class ScriptedPreparer:
    """Prepares anything with one device per claim, unless told otherwise. Writes CDI files when given a folder."""

    def __init__(self, cdi_dir: Path | None = None) -> None:
        self.cdi_dir = cdi_dir
        self.prepared: dict[str, tuple[PreparedDevice, ...]] = {}
        self.prepare_calls: list[tuple[ClaimRef, ...]] = []
        self.unprepare_calls: list[tuple[ClaimRef, ...]] = []
        self.timeouts: list[float] = []
        self.errors: dict[str, DriverError] = {}  # by claim name
        self.before: Callable[[str, Sequence[ClaimRef], float], None] = lambda operation, claims, timeout: None
        self.lock = threading.Lock()

    def prepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, PrepareOutcome]:
        with self.lock:
            self.prepare_calls.append(tuple(claims))
            self.timeouts.append(timeout)
        self.before("prepare", claims, timeout)
        return {claim.uid: self._prepare(claim) for claim in claims}

    def unprepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, UnprepareOutcome]:
        with self.lock:
            self.unprepare_calls.append(tuple(claims))
        self.before("unprepare", claims, timeout)
        return {claim.uid: self._unprepare(claim) for claim in claims}

    def _prepare(self, claim: ClaimRef) -> PrepareOutcome:
        if claim.name in self.errors:
            return self.errors[claim.name]
        device = PreparedDevice(
            request_names=("gpu",),
            pool_name=NODE,
            device_name="gpu-0",
            cdi_device_ids=(f"{CDI_KIND}={claim.uid}-gpu-0",),
            share_id="0f6b0e4d-0000-4000-8000-000000000000",
        )
        if self.cdi_dir is not None:
            self.cdi_dir.mkdir(parents=True, exist_ok=True)
            node = {"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}
            edits = {"deviceNodes": [node], "env": [f"CLAIM={claim.uid}"]}
            spec = {
                "cdiVersion": "0.5.0",
                "kind": CDI_KIND,
                "devices": [{"name": f"{claim.uid}-gpu-0", "containerEdits": edits}],
            }
            (self.cdi_dir / f"{claim.uid}.json").write_text(json.dumps(spec))
        with self.lock:
            self.prepared[claim.uid] = (device,)
        return (device,)

    def _unprepare(self, claim: ClaimRef) -> UnprepareOutcome:
        if claim.name in self.errors:
            return self.errors[claim.name]
        if self.cdi_dir is not None:
            (self.cdi_dir / f"{claim.uid}.json").unlink(missing_ok=True)
        with self.lock:
            self.prepared.pop(claim.uid, None)
        return None


class RecordingObserver:
    """CallObserver that remembers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failures: list[tuple[str, ClaimRef, DriverError]] = []

    def started(self, operation: Operation) -> None:
        self.calls.append(operation)

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        self.failures.extend((operation, claim, error) for claim, error in failures)


class InProcessPlugin:
    """The plugin's real servers over a scripted engine."""

    def __init__(
        self,
        root: Path,
        preparer: ScriptedPreparer,
        *,
        pod_uid: str = "",
        versions: tuple[str, ...] = SUPPORTED_VERSIONS,
        call_grace: float = 10.0,
        message_seconds: float = 5.0,
    ) -> None:
        self.paths = socket_paths(DRIVER, root / "plugins", root / "plugins_registry", pod_uid)
        self.preparer = preparer
        self.observer = RecordingObserver()
        self.connection = KubeletConnection(self.paths.dra)
        registration = RegistrationService(DRIVER, self.paths.dra, versions, self.connection)
        self.calls = CallsUnderWay(grace=call_grace)
        dra = DraService(preparer, [self.observer], calls=self.calls)
        self.servers = PluginServers(
            DRIVER, self.paths, dra.handlers(), registration.handler(), message_seconds=message_seconds
        )

    def start(self) -> None:
        self.servers.start()

    def stop(self, grace: float = 5.0) -> None:
        self.servers.stop(grace)


FAST = KubeletOptions(
    poll_interval=0.02,
    registration_backoff=0.05,
    pod_backoff=0.05,
    pod_backoff_limit=0.2,
    container_run_time=0.02,
    reconcile_interval=0.2,
    wipe_delay=0.3,
    wipe_retry=0.05,
)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a name short enough for unix sockets; pytest's tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="gd") as folder:
        yield Path(folder)


def eventually(check: Callable[[], Any], timeout: float = 10.0) -> Any:
    """The first true answer of ``check``, which is asked after 10 ms and then more seldom: asking costs what others need."""
    give_up, pause = time.monotonic() + timeout, 0.01
    while True:
        answer = check()
        if answer or time.monotonic() > give_up:
            assert answer, f"not so within {timeout} s: {check}"
            return answer
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)


class Cluster:
    """An API server, one kubelet, and the scheduler's part played by the test."""

    def __init__(self, root: Path, options: KubeletOptions = FAST) -> None:
        self.root = root
        self.cdi_dir = root / "cdi"
        self.api = EmbeddedApi()
        self.kubelet = FakeKubelet(NODE, self.api, root, [self.cdi_dir], options=options)

    def claim(
        self, name: str, *, driver: str = DRIVER, device: str = "gpu-0", configs: Sequence[Obj] = (), **more: Any
    ) -> Obj:
        """An allocated claim with one request, gpu, that has ``device``, with ``configs`` in its allocation. ``more``:
        of its result, such as the id of a share."""
        request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER}}
        created = self.api.create(
            RESOURCE_CLAIMS,
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"devices": {"requests": [request]}},
            },
        )
        result = {"request": "gpu", "driver": driver, "pool": NODE, "device": device, **more}
        devices = {"results": [result], **({"config": list(configs)} if configs else {})}
        created["status"] = {"allocation": {"devices": devices}}
        return self.api.update(RESOURCE_CLAIMS, created, subresource="status")

    def reserve(self, claim: str, pod: Obj) -> None:
        user = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        found = self.api.get(RESOURCE_CLAIMS, claim, "default")
        found["status"].setdefault("reservedFor", []).append(user)
        self.api.update(RESOURCE_CLAIMS, found, subresource="status")

    def pod(self, name: str, *claims: str, reserve: bool = True, **spec: Any) -> Obj:
        """A pod on our node with one container that uses all of ``claims``, which are there already."""
        container = {"name": "main", "image": "cuda", "resources": {"claims": [{"name": claim} for claim in claims]}}
        pod = self.api.create(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "containers": [container],
                    "resourceClaims": [{"name": claim, "resourceClaimName": claim} for claim in claims],
                    **spec,
                },
            },
        )
        if reserve:
            for claim in claims:
                self.reserve(claim, pod)
        # Last, as the scheduler does: from here on the kubelet starts it.
        return self.api.patch(PODS, name, {"spec": {"nodeName": NODE}}, "default")

    def phase(self, name: str) -> str:
        pod = self.api.get(PODS, name, "default")
        return str(pod.get("status", {}).get("phase", ""))

    def gone(self, name: str) -> bool:
        try:
            self.api.get(PODS, name, "default")
        except NotFound:
            return True
        return False
