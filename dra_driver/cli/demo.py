"""``gpu-dra demo``: a simulated cluster, real controller and plugins, manifests applied, watched, and taken back.

Exit codes: 0 when every pod reached the state that its manifest expects, a ConfigMap about shares did what it asks for
and nothing was left behind; 1 when not;
2 when the demo could not be run as asked; 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from dra_driver.allocator.allocate import Snapshot
from dra_driver.cli import kept
from dra_driver.cli.demo_cleanup import count_published, delete_all, delete_everything, wait_until_clean
from dra_driver.cli.demo_output import Output, make_output
from dra_driver.cli.demo_rows import PodRow, lost_row, pod_row
from dra_driver.cli.demo_sharing import (
    asks_for_mps,
    is_about_shares,
    shares_by_rule,
    sharing_conditions,
    wait_for_rules,
    wait_for_shares,
)
from dra_driver.cli.expectations import Expectation, ExpectationError, expectation_of, failed_prepares
from dra_driver.cli.manifests import Loaded, Manifest, ManifestError, in_order, load_all
from dra_driver.cli.quickstart import ExamplesNotFoundError, quickstart_files
from dra_driver.errors import DriverError
from dra_driver.kube.interface import EVENTS, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, AlreadyExists, ApiError, Obj
from dra_driver.kube.lists import list_all
from dra_driver.simulation import contained
from dra_driver.simulation.cluster import ClusterNotReadyError, EmbeddedCluster, ProcessDiedError
from dra_driver.simulation.hardware import load_machine

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_CLEANUP_SECONDS = 30.0
# What the quickstart wants at the same time, with room for the pair that its list of alternatives may take.
_QUICKSTART_GPUS = 10


@dataclass(frozen=True, slots=True)
class DemoOptions:
    machine: str
    driver: str | None  # version of the GPUs' driver; None: the machine's
    nodes: int | None  # None: two, or more of a small machine
    files: tuple[Path, ...]  # empty: the quickstart
    keep: bool
    folder: Path | None
    timeout: float
    verbose: bool


def run(options: DemoOptions) -> int:
    """Call from the main thread; returns the exit code."""
    try:
        loaded = load_all(options.files or quickstart_files())
        description = load_machine(options.machine)
        workplace = Workplace.make(options.folder)
    except (ManifestError, ExamplesNotFoundError, DriverError, OSError) as error:
        return _fail(error)
    output = make_output()
    gpus = len(description.hardware.gpus)
    nodes = options.nodes or (2 if options.files else max(2, math.ceil(_QUICKSTART_GPUS / max(gpus, 1))))
    with workplace.logging(verbose=options.verbose), _terminated_as_interrupted():
        output.start()
        output.step(f"starting {nodes} nodes of {description.name} ({description.title})")
        cluster = EmbeddedCluster(
            options.machine,
            nodes,
            workplace.folder,
            configuration=loaded.configuration,
            driver_version=options.driver,
        )
        code = _run(Demo(cluster, loaded, output, options.timeout), cluster, output, keep=options.keep)
    workplace.leave(wanted=code == 1 or options.folder is not None)
    return code


def _run(demo: Demo, cluster: EmbeddedCluster, output: Output, *, keep: bool) -> int:
    """The demo with everything that can go wrong; the cluster is stopped when this returns."""
    try:
        good = demo.run()
        if keep:
            _keep_up(cluster, output)
            demo.hand_back()
        good = demo.clean_up() and good
    except (DriverError, OSError, ApiError, ManifestError, ExpectationError) as error:
        return _fail(error)
    except ValidationError:
        return _fail(ManifestError("--driver: a driver version looks like 580.105.08"))
    except (ProcessDiedError, ClusterNotReadyError) as error:
        return _fail(error, code=1)
    except KeyboardInterrupt:
        output.step("interrupted, stopping")
        return 130
    finally:
        cluster.stop()
        output.stop()
    print(demo.verdict(good), flush=True)
    return 0 if good else 1


class Demo:
    """Applies manifests to a cluster and follows their pods."""

    def __init__(self, cluster: EmbeddedCluster, loaded: Loaded, output: Output, timeout: float) -> None:
        self._cluster = cluster
        self._manifests = in_order(loaded.manifests)
        self._configuration = loaded.configuration
        self._output = output
        self._timeout = timeout
        self._created: list[Manifest] = []
        self._expected: dict[tuple[str, str], Expectation] = {}
        self._devices: int | None = None  # how many must be free at the end; None: whatever there is
        self._not_shared = ""  # what is wrong with the ConfigMap that asks for shares
        self._began = time.monotonic()

    def run(self) -> bool:
        """Start the cluster, apply, follow. True when every pod reached what is expected of it, and shares are there if
        a ConfigMap asks for them."""
        self._began = time.monotonic()
        self._cluster.start()
        self._output.step(f"API at {self._cluster.url}; controller and plugins are processes {_pids(self._cluster)}")
        supervised = asks_for_mps(self._manifests, self._configuration) and self._start_supervisors()
        self._cluster.wait_until_ready(self._timeout)
        if shares_by_rule(self._configuration):
            self._not_shared = wait_for_rules(self._cluster.api, self._output.step, self._timeout, fenced=supervised)
        self._devices = count_published(self._cluster.api)
        self._output.step(f"{self._devices} devices published for {len(self._cluster.nodes)} nodes")
        self._apply()
        rows = self._follow()
        self._output.result(rows)
        return all(row.reached for row in rows) and not self._not_shared

    def hand_back(self) -> None:
        """Others had the cluster meanwhile: what they made is taken away too; a GPU that they broke stays broken."""
        delete_everything(self._cluster.api)
        self._devices = None

    def clean_up(self) -> bool:
        """True when everything is as it was before the manifests."""
        delete_all(self._cluster.api, self._created)
        leftovers = wait_until_clean(self._cluster, self._devices, _CLEANUP_SECONDS)
        for leftover in leftovers:
            self._output.step(f"left behind: {leftover}")
        if not leftovers:
            checked = "no pod, claim, CDI file or checkpoint entry is left"
            free = "" if self._devices is None else f", all {self._devices} devices are free"
            self._output.step(f"deleted everything; {checked}{free}")
        return not leftovers

    def verdict(self, good: bool) -> str:
        seconds = time.monotonic() - self._began
        pods = len(self._expected)
        if good:
            counted = f"{pods} pod{'' if pods == 1 else 's'}"
            return f"ok: {counted} reached what the manifests expect, and everything was cleaned up ({seconds:.1f} s)"
        return f"failed after {seconds:.1f} s{f': {self._not_shared}' if self._not_shared else '; see above'}"

    def _start_supervisors(self) -> bool:
        if contained.is_possible():
            self._cluster.start_supervisors()
            return True
        self._output.step("MPS is not to be had here: this machine lets nobody but root have mounts of their own")
        return False

    def _apply(self) -> None:
        pools = Snapshot.from_objects(list_all(self._cluster.api, RESOURCE_SLICES), (), ()).pools
        for manifest in self._manifests:
            if manifest.resource == PODS:
                key = (manifest.namespace or "default", manifest.name)
                self._expected[key] = expectation_of(manifest.object, pools)
        for manifest in self._manifests:
            said_before = sharing_conditions(self._cluster.api) if is_about_shares(manifest) else None
            self._create(manifest)
            if said_before is not None:
                self._not_shared = wait_for_shares(self._cluster.api, said_before, self._output.step)
        sources = len({manifest.source for manifest in self._manifests})
        self._output.step(f"applied {len(self._manifests)} objects from {sources} files")

    def _create(self, manifest: Manifest) -> None:
        api = self._cluster.api
        try:
            api.create(manifest.resource, manifest.object)
            self._created.append(manifest)
        except AlreadyExists as error:
            if manifest.resource.namespaced:
                raise ManifestError(f"{manifest.source}: {manifest} is there twice, remove or rename one") from error
            # A namespace or class that the cluster came with: take the manifest's word for it, as apply does.
            found = api.get(manifest.resource, manifest.name)
            api.update(manifest.resource, {**found, **manifest.object, "metadata": found["metadata"]})
        except ApiError as error:
            raise ManifestError(f"{manifest.source}: {manifest} was refused: {error}") from error

    def _follow(self) -> list[PodRow]:
        """Until all pods reached or missed what is expected, or time is up."""
        deadline = time.monotonic() + self._timeout
        while True:
            self._cluster.check()
            rows = self._rows()
            self._output.update(rows)
            if all(row.reached or row.missed for row in rows) or time.monotonic() > deadline:
                return rows
            time.sleep(_POLL_SECONDS)

    def _rows(self) -> list[PodRow]:
        api = self._cluster.api
        pods = {_key(pod): pod for pod in list_all(api, PODS)}
        claims = {_key(claim): claim for claim in list_all(api, RESOURCE_CLAIMS)}
        failures = failed_prepares(list_all(api, EVENTS))
        rows = []
        for (namespace, name), expectation in self._expected.items():
            pod = pods.get((namespace, name))
            if pod is None:
                rows.append(lost_row(namespace, name, expectation))
                continue
            kubelet = self._cluster.kubelets.get(pod["spec"].get("nodeName") or "")
            views = kubelet.container_views() if kubelet else ()
            uid = pod["metadata"]["uid"]
            own = [view for view in views if view.pod_uid == uid]
            rows.append(pod_row(pod, expectation, claims, own, failures.get(uid, "")))
        return rows


def _keep_up(cluster: EmbeddedCluster, output: Output) -> None:
    """Wait for Ctrl-C, with the API up for others."""
    kept.write(kept.KeptDemo(str(cluster.kubeconfig), str(cluster.folder), os.getpid()))
    output.stop()
    print("The cluster stays up until Ctrl-C. In another terminal:\n\n  gpu-dra get pods\n  gpu-dra get slices -o wide")
    print(f"  KUBECONFIG={cluster.kubeconfig} kubectl get resourceclaims -A\n\nLogs: {cluster.logs}\n", flush=True)
    try:
        while True:
            cluster.check()
            threading.Event().wait(1.0)
    except KeyboardInterrupt:
        print(flush=True)
        output.step("interrupted, cleaning up")
    finally:
        kept.forget(os.getpid())


@dataclass(frozen=True, slots=True)
class Workplace:
    """The cluster's folder; a temporary one is removed unless somebody wants to look into it."""

    folder: Path
    temporary: bool

    @classmethod
    def make(cls, folder: Path | None) -> Workplace:
        """Raises ManifestError for a folder that is in use, and OSError."""
        if folder is None:
            return cls(Path(tempfile.mkdtemp(prefix="gpu-dra-")), temporary=True)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ManifestError(f"folder {folder} is not empty; give one that is, or that does not exist yet")
        return cls(folder.absolute(), temporary=False)

    @contextlib.contextmanager
    def logging(self, *, verbose: bool) -> Iterator[None]:
        """This process's own log goes beside the others', and to standard error when ``verbose``."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        handlers: list[logging.Handler] = [logging.FileHandler(logs / "demo.log")]
        if verbose:
            handlers.append(logging.StreamHandler(sys.stderr))
        root = logging.getLogger()
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
            root.addHandler(handler)
        before = root.level
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.setLevel(before)
            for handler in handlers:
                root.removeHandler(handler)
                handler.close()

    def leave(self, *, wanted: bool) -> None:
        if wanted:
            print(f"logs and all files of the cluster: {self.folder}", flush=True)
        elif self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order.

    SIGINT too is set: a shell starts what it puts in the background with SIGINT ignored, and Python leaves it so.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _pids(cluster: EmbeddedCluster) -> str:
    return ", ".join(str(pid) for pid in cluster.pids.values())


def _fail(error: Exception, code: int = 2) -> int:
    print(f"gpu-dra demo: {error}", file=sys.stderr, flush=True)
    return code
