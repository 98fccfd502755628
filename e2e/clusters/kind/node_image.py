"""The node image of a machine without a registry: assembled once, kept by the digest of what goes in.

It is kept as the data folder of a Docker daemon that has imported it: unpacking that takes 2 to 3 s, importing 5 to 11.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.kind import control_images, node_root
from e2e.clusters.kind.daemon import Daemon
from e2e.clusters.kind.node_programs import NodePrograms
from e2e.clusters.packages import find_program
from e2e.clusters.processes import Process
from e2e.clusters.runner import Runner
from e2e.images import oci

REPOSITORY = "gpu-dra.test/kind-node"
_SOURCES = (node_root.__file__, control_images.__file__, str(Path(node_root.__file__).with_name("unpack.py")))
_CHANGES = ("ENV container=docker", 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]')
# `docker import` cannot say this one (moby builder/dockerfile: validCommitCommands). It is the signal that ends
# systemd, and makes `docker restart` an orderly reboot.
_STOP_SIGNAL = "FROM {base}\nSTOPSIGNAL SIGRTMIN+3\n"


@dataclass(frozen=True, slots=True)
class NodeImage:
    """What the image is called, and the tar.zst of the data folder that has it."""

    reference: str
    archive: Path


def image_key(digest: str, files: list[Path]) -> str:
    """Sixteen digits that change with every file, its name and the programs' digest."""
    key = hashlib.sha256(digest.encode())
    for path in sorted(files):
        key.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return key.hexdigest()[:16]


def image_of(node_programs: NodePrograms) -> NodeImage:
    """The image for these programs and this machine's Docker; it need not exist yet."""
    files = [*(Path(name) for name in (*_SOURCES, oci.__file__)), *node_root.OURS.iterdir()]
    docker = Runner().run([find_program("dockerd") or "dockerd", "--version"])
    key = image_key(f"{node_programs.digest} {docker}", [path for path in files if path.is_file()])
    folder = programs.cache_folder() / "images"
    return NodeImage(
        f"{REPOSITORY}:v{node_programs.version}-{key}", folder / f"kind-node-{node_programs.version}-{key}.tar.zst"
    )


def provide(image: NodeImage, node_programs: NodePrograms, daemon: Daemon, record: Callable[[Process], None]) -> None:
    """Make a daemon that is not running have the image once it starts; assemble the image unless the cache has it.

    To import a new one the daemon is started for a while; ``record`` gets its process.
    """
    if daemon.holds == image.reference:
        return
    if not image.archive.exists():
        image.archive.parent.mkdir(parents=True, exist_ok=True)
        with _locked(image.archive.parent / "kind-node.lock"):
            if not image.archive.exists():
                _make(image, node_programs, daemon, record)
                return
    started = time.monotonic()
    daemon.fill(image.archive, image.reference)
    _say(f"unpacked {image.archive.name} in {time.monotonic() - started:.1f} s")


def _make(image: NodeImage, node_programs: NodePrograms, daemon: Daemon, record: Callable[[Process], None]) -> None:
    started = time.monotonic()
    work = image.archive.parent / "kind-node.work"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir()
    try:
        root = _assemble(node_programs, work)
        daemon.forget_containers()
        processes: list[Process] = []

        def remember(process: Process) -> None:
            processes.append(process)
            record(process)

        _import(daemon.start(remember), image, root)
        daemon.stop(processes[0])
        daemon.pack(image.archive, image.reference)
        _forget_older(image.archive, node_programs.version)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = image.archive.stat().st_size / 1e6
    _say(f"made {image.archive.name}, {size:.0f} MB, in {time.monotonic() - started:.0f} s")


def _import(engine: Runner, image: NodeImage, root: Path) -> None:
    base = f"{image.reference}-base"
    changes = [word for change in _CHANGES for word in ("--change", change)]
    tar = ["tar", "-C", str(root), "--numeric-owner", "--xattrs", "-cf", "-", "."]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as packing:
        engine.run(["docker", "import", *changes, "-", base], stdin=packing.stdout, timeout=300)
    if packing.returncode != 0:
        raise ClusterError(f"tar of {root} ended with {packing.returncode}")
    build = ["docker", "build", "--quiet", "--tag", image.reference, "-"]
    engine.run(build, text=_STOP_SIGNAL.format(base=base), timeout=120)
    engine.run(["docker", "image", "rm", base])


def _assemble(node_programs: NodePrograms, work: Path) -> Path:
    started = time.monotonic()
    debian = _debian_root()
    _say(f"assembling a kind node image for Kubernetes {node_programs.version} ...")
    root, images = work / "root", work / "images"
    node_root.assemble(root, debian, node_programs)
    images.mkdir()
    control_images.write_control_images(node_programs, root, images)
    node_root.unpack_images(root, images)
    shutil.rmtree(images)
    _say(f"  root and images: {time.monotonic() - started:.0f} s")
    return root


def _debian_root() -> Path:
    """A tar of the Debian packages; made again when the list of packages changes."""
    key = hashlib.sha256(f"{node_root.SUITE} {node_root.PACKAGES}".encode()).hexdigest()[:16]
    folder = programs.cache_folder() / "roots"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"kind-node-{node_root.SUITE}-{key}.tar"
    if not target.exists():
        started = time.monotonic()
        _say(f"fetching Debian packages for a kind node ({node_root.SUITE}) ...")
        partial = target.with_name(f"partial-{target.name}")
        partial.unlink(missing_ok=True)
        node_root.make_debian_root(partial)
        partial.rename(target)
        _say(f"fetched them in {time.monotonic() - started:.0f} s")
    return target


def _forget_older(archive: Path, version: str) -> None:
    """Only the newest image of a Kubernetes version is of use."""
    for path in archive.parent.glob(f"kind-node-{version}-*.tar.zst"):
        if path != archive:
            path.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
