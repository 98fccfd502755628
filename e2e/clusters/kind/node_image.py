"""The node image of a machine without a registry: assembled once, kept by the digest of what goes in, imported."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.kind import control_images, node_root
from e2e.clusters.kind.engine import Engine
from e2e.clusters.kind.node_programs import NodePrograms
from e2e.images import oci

REPOSITORY = "gpu-dra.test/kind-node"
_SOURCES = (node_root.__file__, control_images.__file__, str(Path(node_root.__file__).with_name("unpack.py")))
_CHANGES = ("ENV container=docker", 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]')
# `docker import` cannot say this one (moby builder/dockerfile: validCommitCommands). It is the signal that ends
# systemd, and makes `docker restart` an orderly reboot.
_STOP_SIGNAL = "FROM {base}\nSTOPSIGNAL SIGRTMIN+3\n"


@dataclass(frozen=True, slots=True)
class NodeImage:
    """An assembled image. ``archive`` is a tar.zst of its root."""

    reference: str
    archive: Path


def image_key(digest: str, files: list[Path]) -> str:
    """Sixteen digits that change with every file, its name and the programs' digest."""
    key = hashlib.sha256(digest.encode())
    for path in sorted(files):
        key.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return key.hexdigest()[:16]


def ensure_archive(node_programs: NodePrograms) -> NodeImage:
    """Assemble the image unless the cache has it."""
    files = [*(Path(name) for name in (*_SOURCES, oci.__file__)), *node_root.OURS.iterdir()]
    key = image_key(node_programs.digest, [path for path in files if path.is_file()])
    folder = programs.cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    image = NodeImage(
        f"{REPOSITORY}:v{node_programs.version}-{key}", folder / f"kind-node-{node_programs.version}-{key}.tar.zst"
    )
    if not image.archive.exists():
        with _locked(folder / "kind-node.lock"):
            if not image.archive.exists():
                _assemble(node_programs, image.archive, folder / "kind-node.work")
                _forget_older(image.archive, node_programs.version)
    return image


def import_image(engine: Engine, image: NodeImage) -> None:
    """Make the image known to the daemon; does nothing when it is."""
    if engine.succeeds(["docker", "image", "inspect", image.reference]):
        return
    started = time.monotonic()
    base = f"{image.reference}-base"
    with subprocess.Popen(["zstd", "-dcq", image.archive], stdout=subprocess.PIPE) as unpacked:
        changes = [word for change in _CHANGES for word in ("--change", change)]
        engine.run(["docker", "import", *changes, "-", base], stdin=unpacked.stdout, timeout=300)
    if unpacked.returncode != 0:
        raise ClusterError(f"{image.archive} is damaged: remove it and run again")
    build = ["docker", "build", "--quiet", "--tag", image.reference, "-"]
    engine.run(build, text=_STOP_SIGNAL.format(base=base), timeout=120)
    engine.run(["docker", "image", "rm", base])
    _say(f"imported {image.reference} in {time.monotonic() - started:.1f} s")


def _assemble(node_programs: NodePrograms, archive: Path, work: Path) -> None:
    started = time.monotonic()
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir()
    try:
        debian = _debian_root()
        _say(f"assembling a kind node image for Kubernetes {node_programs.version} ...")
        root, images = work / "root", work / "images"
        node_root.assemble(root, debian, node_programs)
        images.mkdir()
        control_images.write_control_images(node_programs, root, images)
        _say(f"  root and images: {time.monotonic() - started:.0f} s")
        node_root.unpack_images(root, images)
        shutil.rmtree(images)
        _pack(root, archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = archive.stat().st_size / 1e6
    _say(f"assembled {archive.name}, {size:.0f} MB, in {time.monotonic() - started:.0f} s")


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


def _pack(root: Path, archive: Path) -> None:
    partial = archive.with_name(f".{archive.name}.part")
    tar = ["tar", "-C", str(root), "--numeric-owner", "--xattrs", "--sort=name", "-cf", "-", "."]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as packing:
        zstd = ["zstd", "-q", "-3", "-T0", "-f", "-o", str(partial)]
        result = subprocess.run(zstd, stdin=packing.stdout, check=False, capture_output=True, text=True)
    if result.returncode or packing.returncode:
        raise ClusterError(f"packing the node image failed: {result.stderr}")
    partial.rename(archive)


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
