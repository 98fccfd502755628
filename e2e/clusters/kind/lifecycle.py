"""Bringing a kind cluster up and taking it down, with the same kind commands in the user's Docker and in our daemon."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from e2e.clusters import packages, programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.kind.archive import image_references
from e2e.clusters.kind.cluster import KindCluster, collect_logs, daemon_of
from e2e.clusters.kind.configuration import api_server, with_server, with_workers
from e2e.clusters.kind.engine import users_docker
from e2e.clusters.kind.node_image import image_of, provide
from e2e.clusters.kind.node_programs import node_programs
from e2e.clusters.kind.state import State, StateFolder
from e2e.clusters.kind.tools import kind_program
from e2e.clusters.processes import Process, start_detached
from e2e.clusters.runner import Runner

CONFIGURATION = Path(__file__).resolve().parents[3] / "deploy/kind/config.yaml"
_CREATE_SECONDS = 600.0  # includes pulling a released image
_CREATE_HERE_SECONDS = 180.0
_FORWARD_SECONDS = 20.0


DEFAULT_NAME = "gpu-dra"  # as in deploy/kind/config.yaml


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` is asked for."""

    name: str = DEFAULT_NAME
    kubernetes: str = ""  # "1.37"; empty: kind's own default, or the newest that is built here
    workers: int = 0
    machine: str | None = None
    image_archive: Path | None = None
    node_image: str | None = None  # a released one, with the user's Docker
    own_daemon: bool | None = None  # None: ours where no Docker answers
    configuration: Path = CONFIGURATION
    guarded: int | None = None  # the process whose end takes the cluster down, however it ends


def up(wanted: Wanted) -> KindCluster:
    """Create the cluster. What was begun is taken down again when a step fails; logs stay in the state folder."""
    folder = StateFolder.of(wanted.name)
    with folder.locked():
        _clear_remains(folder)
        started = time.monotonic()
        docker = None if wanted.own_daemon else users_docker()
        if docker is None and wanted.own_daemon is False:
            raise ClusterError("Docker does not answer (docker info)")
        if docker is not None:
            _refuse_another(docker, folder.name)
        state = State(own_daemon=docker is None, machine=wanted.machine, kubernetes=wanted.kubernetes)
        folder.write(state)
        try:
            if wanted.guarded is not None:
                _start_guard(folder, wanted.guarded)
            if docker is not None:
                cluster = _up_in_docker(folder, state, docker, wanted)
            else:
                cluster = _up_in_own_daemon(folder, wanted)
        except BaseException:
            _take_down(folder)
            raise
        _say(f"{cluster.name} is ready after {time.monotonic() - started:.1f} s")
        return cluster


def down(name: str, *, keep_images: bool = True, patience: float = 0.0) -> None:
    """Remove the cluster, whatever state it is in. With ``keep_images`` our daemon's node image stays for the next.

    ``patience`` is how many seconds another command may take that is changing it."""
    folder = StateFolder.of(name)
    with folder.locked(patience):
        _take_down(folder)
        if not keep_images:
            shutil.rmtree(folder.path)


def _start_guard(folder: StateFolder, pid: int) -> None:
    """A process of its own session outlives a test run that is killed, and clears up after it."""
    command = [sys.executable, "-m", "e2e.clusters.kind", "guard", str(pid), "--name", folder.name]
    start_detached(command, log=folder.path / "guard.log", record=lambda process: folder.record("guard", process))


def _clear_remains(folder: StateFolder) -> None:
    """Of a cluster whose creation was killed, or whose daemon died, nothing is worth keeping. A running one is."""
    state = folder.read()
    if state is None:
        return
    daemon = state.processes.get("daemon")
    if state.ready and (not state.own_daemon or (daemon is not None and daemon.alive)):
        raise ClusterError(
            f"the kind cluster {folder.name} exists: python -m e2e.clusters.kind down --name {folder.name}"
        )
    _say(f"removing what an earlier attempt left of {folder.name} ...")
    _take_down(folder)


def _refuse_another(engine: Runner, name: str) -> None:
    """A cluster that somebody made by hand is not ours to take down when the creation fails because of it."""
    if name in engine.run([kind_program(), "get", "clusters"]).split():
        raise ClusterError(f"Docker has a kind cluster {name} already: kind delete cluster --name {name}, or --name")


def _up_in_docker(folder: StateFolder, state: State, engine: Runner, wanted: Wanted) -> KindCluster:
    """Nothing special: kind, its released image, the user's kubeconfig. The suite gets a copy of the access."""
    if wanted.kubernetes and not wanted.node_image:
        raise ClusterError(
            "with Docker the Kubernetes version is that of the node image: "
            "--node-image kindest/node:vX.Y.Z@sha256:... as kind's release notes list it"
        )
    image = ["--image", wanted.node_image] if wanted.node_image else []
    _create(engine, folder, wanted, image, timeout=_CREATE_SECONDS)
    kubeconfig = engine.run([kind_program(), "get", "kubeconfig", "--name", folder.name])
    _write_private(folder.kubeconfig, kubeconfig)
    version = engine.run(["docker", "exec", f"{folder.name}-control-plane", "cat", "/kind/version"])
    return _finish(folder, replace(state, kubernetes=version.strip().removeprefix("v")), engine, wanted)


def _up_in_own_daemon(folder: StateFolder, wanted: Wanted) -> KindCluster:
    """A daemon in its own namespaces, an assembled node image, then the same; and a way into its network."""
    if wanted.node_image:
        raise ClusterError("--node-image needs Docker: without a registry the node image is assembled here")
    packages.ensure_packages(packages.KIND)
    built = node_programs(wanted.kubernetes or programs.NEWEST_KUBERNETES)
    image = image_of(built)
    daemon = daemon_of(folder)
    if daemon.has_containers:
        daemon.forget_containers()

    def record(process: Process) -> None:
        folder.record("daemon", process)

    recorded = folder.read()
    assert recorded is not None
    folder.write(replace(recorded, kubernetes=built.version, node_image=image.reference))
    provide(image, built, daemon, record)
    engine = daemon.start(record)
    kubeconfig = ["--kubeconfig", str(folder.kubeconfig)]
    _create(engine, folder, wanted, ["--image", image.reference, *kubeconfig], timeout=_CREATE_HERE_SECONDS)
    running = folder.read()
    assert running is not None
    _forward(folder, running.processes["daemon"])
    return _finish(folder, running, engine, wanted)


def _create(engine: Runner, folder: StateFolder, wanted: Wanted, options: list[str], *, timeout: float) -> None:
    text = wanted.configuration.read_text()
    configuration = folder.path / "kind.yaml"
    configuration.write_text(with_workers(text, wanted.workers) if wanted.workers else text)
    command = [kind_program(), "create", "cluster", "--name", folder.name, "--config", str(configuration)]
    started = time.monotonic()
    try:
        # Without --retain kind removes the nodes of a failure, and the cause with them.
        engine.run([*command, *options, "--retain", "--wait", "120s"], timeout=timeout)
    except ClusterError as error:
        logs = folder.path / "failed"
        shutil.rmtree(logs, ignore_errors=True)
        try:
            collect_logs(engine, folder, logs)
        except ClusterError as second:
            raise ClusterError(f"{error}\nand no logs could be collected: {second}") from error
        raise ClusterError(f"{error}\nlogs: {logs}") from error
    _say(f"kind created {folder.name} in {time.monotonic() - started:.1f} s")


def _forward(folder: StateFolder, daemon: Process) -> None:
    """Make the API server, on 127.0.0.1 of the daemon's network, reachable from here and point the kubeconfig there."""
    kubeconfig = folder.kubeconfig.read_text()
    host, port = api_server(kubeconfig)
    port_file = folder.path / "api-port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "e2e.clusters.forward", "--listen", "127.0.0.1:0"]
    command += ["--namespace-of", str(daemon.pid), "--target", f"{host}:{port}", "--port-file", str(port_file)]
    log = folder.path / "forward.log"
    process = start_detached(command, log=log, record=lambda process: folder.record("forward", process))
    deadline = time.monotonic() + _FORWARD_SECONDS
    while not port_file.exists():
        if not process.alive or time.monotonic() > deadline:
            raise ClusterError(f"the forwarder to the API server did not start:\n{log.read_text()[-1000:]}")
        time.sleep(0.02)
    _write_private(folder.kubeconfig, with_server(kubeconfig, int(port_file.read_text())))


def _finish(folder: StateFolder, state: State, engine: Runner, wanted: Wanted) -> KindCluster:
    nodes = sorted(engine.run([kind_program(), "get", "nodes", "--name", folder.name]).split())
    latest = folder.read()
    assert latest is not None
    state = replace(state, nodes=tuple(nodes), processes=latest.processes, ready=True)
    cluster = KindCluster(folder, state, engine)
    if wanted.image_archive is not None:
        cluster.load_image(wanted.image_archive)
        references = image_references(wanted.image_archive)
        state = replace(state, image=references[0] if references else None)
    folder.write(state)
    return KindCluster(folder, state, engine)


def _take_down(folder: StateFolder) -> None:
    """Remove the cluster and all that was started for it. Does what is left to do when parts are gone already."""
    state = folder.read()
    if state is None:
        return
    daemon_process = state.processes.get("daemon")
    engine: Runner | None = None
    if not state.own_daemon:
        engine = users_docker()
        if engine is None:
            raise ClusterError(f"the cluster {folder.name} is in Docker, which does not answer")
        engine.run([kind_program(), "delete", "cluster", "--name", folder.name], timeout=180)
    else:
        _take_own_down(folder, daemon_process)
    forward = state.processes.get("forward")
    if forward is not None and not forward.end(signal.SIGTERM, timeout=5):
        forward.end(signal.SIGKILL, timeout=5)
    guard = state.processes.get("guard")
    if guard is not None and guard.pid != os.getpid():
        guard.end(signal.SIGTERM, timeout=5)
    folder.forget()


def _take_own_down(folder: StateFolder, process: Process | None) -> None:
    daemon = daemon_of(folder)
    orderly = False
    if process is not None and process.alive and daemon.socket.exists():
        engine = daemon.engine(process)
        command = [kind_program(), "delete", "cluster", "--name", folder.name]
        orderly = engine.succeeds([*command, "--kubeconfig", str(folder.kubeconfig)], timeout=60)
    daemon.stop(process)
    if not orderly or daemon.has_containers:
        daemon.forget_containers()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
